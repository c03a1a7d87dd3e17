"""The command itself; what it looks at is tested in tests/test_preflight/test_check_data.py."""

import shutil

import pytest


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('check_data.py', status=2)


def test_status_and_text(tool, labelled_folder, tmp_path, capsys):
    root = tmp_path / 'images'
    shutil.copytree(labelled_folder, root)
    arguments = ['folder', str(root), '--leakage', '--decode']
    assert tool.main(arguments) == 0
    out = capsys.readouterr().out
    assert f'  {root}/train: all 60 files are read\n' in out
    assert '  no test image is a training image too, by content\n' in out
    assert out.endswith('folder: nothing wrong was found.\n')
    shutil.copy(root / 'train/red/3.png', root / 'test/red/copy.png')
    assert tool.main(arguments) == 0
    assert f'{root}/test/red/copy.png is {root}/train/red/3.png' in capsys.readouterr().out
    (root / 'test/red/0.png').write_bytes(b'')
    assert tool.main(arguments) == 1
    assert 'PROBLEM: test_dataloader.dataset: 1 of 25 images cannot be decoded: ' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['nothing', 'x'], 'nothing is neither a config file nor one of ade20k, camvid'),
        (['coco'], 'a folder belongs to a name'),
        (['a.py', 'x'], 'a folder belongs to a name'),
    ],
)
def test_wrong_usage(tool, capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        tool.main(arguments)
    assert error.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize('name', ['ade20k', 'camvid', 'cifar10', 'coco', 'folder', 'imagenet', 'unlabelled'])
def test_every_name_is_looked_for_in_its_folder(tool, tmp_path, capsys, name):
    if name != 'cifar10':  # which is downloaded
        assert tool.main([name, str(tmp_path / 'no')]) == 1
        assert f'there is no folder {tmp_path}/no' in capsys.readouterr().out
