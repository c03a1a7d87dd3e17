import importlib.util

import pytest
from mmengine.config import Config

from mmmlo.preflight import check_transfer


def test_an_mmcv_without_operators_is_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(check_transfer, 'find_spec', lambda name: None if name == 'mmcv._ext' else find(name))
    check_transfer.check_frameworks(Config(dict(default_scope='mmseg')))
    with pytest.raises(ImportError, match=r'mmcv with its operators \(mmcv._ext\).*tools/install.sh --force'):
        check_transfer.check_frameworks(Config(dict(default_scope='mmdet')))
