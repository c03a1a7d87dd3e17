"""Configs that are named by the package, stand in any folder, or are not there; and files that are no configs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmmlo.launch.config import load_config
from mmmlo.utils.errors import MmmloError

TRAIN = Path(__file__).resolve().parents[2] / 'tools' / 'train.py'
BASE = 'mmmlo::mae/mae_vit-nano-p4_1xb64-coslr-20e_digits.py'


@pytest.mark.parametrize(
    'name',
    [BASE, 'mmmlo::segmentation/linear_vit-mini-p16_camvid.py', 'mmmlo::benchmarks/vit-nano-p4_1xb64-coslr-20e_digits.py'],
)
def test_base_named_by_the_package_is_the_same_config(name, tmp_path, monkeypatch):
    folder = tmp_path / 'mes expériences (β)'
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path('own.py').write_text(f'_base_ = {name!r}\n')
    assert load_config('own.py').to_dict() == load_config(name).to_dict()
    assert "'_scope_': 'mmmlo'" not in str(load_config('own.py').to_dict())


def test_base_of_a_base_and_a_link(tmp_path):
    (tmp_path / 'first.py').write_text(f'_base_ = {BASE!r}\n')
    (tmp_path / 'second.py').write_text("_base_ = ['first.py']\nmodel = dict(mask_ratio=0.5)\n")
    (tmp_path / 'link.py').symlink_to(tmp_path / 'second.py')
    assert load_config(str(tmp_path / 'link.py')).model.mask_ratio == 0.5


NEAR = 'Is it mmmlo::mae/mae_vit-nano-p4_1xb64-coslr-20e_digits.py'


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (f'_base_ = {BASE[:-4] + ".py"!r}', NEAR),
        ("_base_ = 'mmmlo::old_folder/mae_vit-nano-p4_1xb64-coslr-20e_digits.py'", NEAR),
        ("_base_ = '../mae_vit-nano-p4_1xb64-coslr-20e_digit.py'", NEAR),
        ("_base_ = 'mmmlo::mae.py'", 'mmdet::'),
        ("_base_ = 'nowhere::mae/a.py'", 'nowhere'),
        ('model = dict(', 'SyntaxError'),
        ('model = dict(a=b)', "name 'b' is not defined"),
        ('import no_such_package', "'no_such_package'"),
        ("_base_ = 'config.py'", 'config.py'),
        ('<!DOCTYPE html>', 'SyntaxError'),
    ],
    ids=['base with a typo', 'base in a folder of before', 'relative base', 'base without folder', 'unknown package',
         'syntax', 'unknown name', 'unknown import', 'its own base', 'web page'],
)
def test_config_that_cannot_be_read_is_one_line(text, words, tmp_path):
    (tmp_path / 'config.py').write_text(text + '\n')
    with pytest.raises(MmmloError, match='cannot be read') as error:
        load_config(str(tmp_path / 'config.py'))
    assert words in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('path', 'words'),
    [
        ('.', 'is a folder'), ('', 'does not exist'), ('no/such/file.py', 'does not exist'), (BASE[:-4] + '.py', NEAR),
        ('mae_vit-nano-p4_1xb64-coslr-20e_digits.py', NEAR)
    ])
def test_absent_config_is_one_line(path, words):
    with pytest.raises(MmmloError, match='config') as error:
        load_config(path)
    assert words in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('options', [['--no-such'], ['--launcher', 'none?'], [], ['--help']], ids=str)
@pytest.mark.parametrize('way', ['link', 'module', 'optimized'])
def test_usage_however_a_tool_is_called(way, options, tmp_path):
    (tmp_path / 'a train.py').symlink_to(TRAIN)
    command = dict(
        link=[tmp_path / 'a train.py'], module=['-m', 'mmmlo', 'train'], optimized=['-O', TRAIN])[way]
    env = dict(os.environ, PYTHONPATH=str(TRAIN.parents[1]) if way == 'module' else '')
    result = subprocess.run([sys.executable, *command, *options], cwd=tmp_path, capture_output=True, text=True, env=env)
    assert 'Traceback' not in result.stderr
    if options == ['--help']:
        assert result.returncode == 0 and result.stdout.startswith('usage: ')
    else:
        assert result.returncode == 2 and len(result.stderr.splitlines()) == 1 and result.stderr.startswith('error: ')
