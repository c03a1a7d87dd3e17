"""The command itself; what it looks at is tested in tests/test_datasets/test_layouts.py."""

import importlib.util
import os.path as osp

import pytest

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('check_data', osp.join(ROOT, 'tools', 'check_data.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_status_and_text(tool, labelled_folder, tmp_path, capsys):
    arguments = ['imagenet', str(tmp_path)]
    for split, theirs in (('train', 'train'), ('val', 'test')):
        (tmp_path / split).symlink_to(labelled_folder / theirs)
    assert tool.main(arguments) == 1
    out = capsys.readouterr().out
    assert '  train images: 60\n' in out
    assert 'INCOMPLETE: train classes: 3, and the official release has 1,000' in out
    assert tool.main([*arguments, '--subset']) == 0
    out = capsys.readouterr().out
    assert 'subset: val images: 24' in out and out.endswith(f'{tmp_path} holds imagenet as the configs expect it.\n')
    assert tool.main(['coco', str(tmp_path), '--subset']) == 1
    assert f'PROBLEM: there is no folder {tmp_path}/train2017' in capsys.readouterr().out
