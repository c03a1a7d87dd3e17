import importlib.util

import pytest

from mmmlo.preflight import mmcv_ops


def test_an_mmcv_without_operators_is_named(monkeypatch):
    mmcv_ops.require_mmcv_ops()
    find = importlib.util.find_spec
    monkeypatch.setattr(mmcv_ops, 'find_spec', lambda name: None if name == 'mmcv._ext' else find(name))
    with pytest.raises(ImportError, match=r'mmcv with its operators \(mmcv._ext\).*tools/install.sh --force'):
        mmcv_ops.require_mmcv_ops()
