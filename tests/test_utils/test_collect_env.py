import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import mmmlo
from mmmlo.utils import collect_env as module

ROOT = Path(__file__).resolve().parents[2]


def run(*options: str) -> subprocess.CompletedProcess:
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    command = [sys.executable, '-W', 'ignore', *options, '-m', 'mmmlo.utils.collect_env']
    return subprocess.run(command, env=env, capture_output=True, text=True)


def test_this_environment_is_whole():
    result = run()
    assert result.returncode == 0, result.stderr
    found = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if line)
    assert found['mmmlo'].startswith(mmmlo.__version__)
    assert found['torch'] == torch.__version__
    assert 'nms runs' in result.stdout


def test_empty_environment_is_described():
    result = run('-S')  # without site-packages
    assert result.returncode == 1
    assert 'Traceback' not in result.stderr
    assert 'bash tools/install.sh' in result.stderr
    for name in ('torch', 'mmcv operators', 'mmpretrain', 'mmsegmentation', 'mmdetection'):
        assert f'{name}: ModuleNotFoundError' in result.stderr


def test_problems_are_what_failed():
    env = {'torch': '2.13.0', 'mmcv': 'FAILED: ModuleNotFoundError: no mmcv', 'GPU': 'none'}
    assert module.find_problems(env) == ['mmcv: ModuleNotFoundError: no mmcv']


def test_mmcv_without_operators(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
    assert module._mmcv_operators() == 'FAILED: this mmcv was built without operators, which mmdet needs'


def test_wrong_answer_of_nms(monkeypatch):
    everything_kept = SimpleNamespace(nms=lambda boxes, scores, threshold: (boxes, torch.arange(3)))
    monkeypatch.setitem(sys.modules, 'mmcv.ops', everything_kept)
    assert module._mmcv_operators() == 'FAILED: nms kept boxes [0, 1, 2], not [1, 2]'


@pytest.mark.parametrize('library', ['libGL.so.1', 'libgthread-2.0.so.0', 'libglib-2.0.so.0'])
def test_libraries_that_opencv_lacks_are_named(library):
    def load():
        raise ImportError(f'{library}: cannot open shared object file: No such file or directory')

    assert 'apt-get install libgl1 libglib2.0-0' in module._try(load)
