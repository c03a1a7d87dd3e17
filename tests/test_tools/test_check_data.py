"""The command itself; what it looks at is tested in tests/test_preflight/test_layouts.py."""

import os.path as osp
import shutil

import numpy as np
import pytest

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('check_data.py')


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


def test_leakage_is_a_warning_and_a_broken_image_a_problem(tool, labelled_folder, tmp_path, capsys):
    root = tmp_path / 'images'
    shutil.copytree(labelled_folder, root)
    arguments = ['folder', str(root), '--leakage', '--decode']
    assert tool.main(arguments) == 0
    out = capsys.readouterr().out
    assert '  train images: 60\n' in out and '  no test image is a training image too, by content\n' in out
    shutil.copy(root / 'train/red/3.png', root / 'test/red/copy.png')
    assert tool.main(arguments) == 0
    out = capsys.readouterr().out
    assert 'warning: 1 of 25 images of test are training images too, by content: ' in out
    assert f'{root}/test/red/copy.png is {root}/train/red/3.png' in out
    (root / 'test/red/0.png').write_bytes(b'')
    assert tool.main(arguments) == 1
    assert f'PROBLEM: 1 images cannot be decoded: {root}/test/red/0.png' in capsys.readouterr().out


def test_leakage_within_cifar10_is_looked_for_in_pixels(tool, monkeypatch):
    images = np.arange(3 * 48, dtype=np.uint8).reshape(3, 4, 4, 3)
    splits = dict(train=images[:2], test=images[1:])
    monkeypatch.setattr(tool, 'CIFAR10', lambda root, split, download: [dict(img=image) for image in splits[split]])
    assert tool.find_leakage('cifar10', 'x') == (
        1, '1 of 2 images of the test split are training images too, by content: test #0 is train #1'
    )
    with pytest.raises(SystemExit):
        tool.parse_args(['cifar10', 'x', '--decode'])
