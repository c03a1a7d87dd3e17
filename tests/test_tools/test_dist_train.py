"""tools/dist_train.sh on two CPU processes, as a user runs it."""

import os
import os.path as osp
import socket
import subprocess
import sys

import pytest
import torch

from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))


def call(*command, cwd):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    env = dict(os.environ, OMP_NUM_THREADS='1', PORT=str(port), MMMLO_PYTHON=sys.executable)
    result = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=500, env=env)
    return result.returncode, result.stdout + result.stderr


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('dist')
    for method in ('mae', 'mlo_mae'):
        name = f'configs/{method}/{method.replace("_", "-")}_vit-nano-p4_1xb64-coslr-20e_digits.py'
        cfg = shrink(load_config(osp.join(ROOT, name)))
        cfg.default_hooks.checkpoint.interval = 1
        cfg.default_hooks.logger.interval = 1
        cfg.dump(folder / f'{method}.py')
    return folder


@pytest.mark.dist
def test_levels_train_and_resume_with_another_number_of_processes(folder):
    code, output = call('bash', osp.join(ROOT, 'tools/dist_train.sh'), 'mlo_mae.py', 2, cwd=folder)
    assert code == 0, output
    assert output.count("Levels ['pretrain', 'finetune', 'masking']") == 1
    assert '8 x 1 x 2' in output
    assert 'for a batch of 64, and this run has 16 (8 images on each of 2 processes)' in output
    assert 'knn/top1' in output
    checkpoint = torch.load(folder / 'work_dirs/mlo_mae/epoch_1.pth', weights_only=False)
    assert checkpoint['optimizer']['step_counts'] == dict(pretrain=4, finetune=2, masking=2)
    assert not any(name.startswith('module.') for name in checkpoint['state_dict'])
    more = ('--resume', '--resume-settings', 'checkpoint', '--no-validate', '--cfg-options', 'train_cfg.max_iters=6')
    code, output = call(sys.executable, osp.join(ROOT, 'tools/train.py'), 'mlo_mae.py', *more, cwd=folder)
    assert code == 0, output
    assert 'The checkpoint is of 2 processes, and there are 1' in output
    assert 'for a batch of 64, and this run has 8 (8 images on each of 1 processes)' in output


@pytest.mark.dist
def test_one_level_trains_and_is_tested(folder):
    code, output = call('bash', osp.join(ROOT, 'tools/dist_train.sh'), 'mae.py', 2, '--amp', cwd=folder)
    assert code == 0, output
    checkpoint = folder / 'work_dirs/mae/epoch_1.pth'
    code, output = call('bash', osp.join(ROOT, 'tools/dist_test.sh'), 'mae.py', checkpoint, 2, cwd=folder)
    assert code == 0, output
    assert 'knn/top1' in output


def test_strategies_that_split_the_model_are_one_error(folder):
    text = (folder / 'mlo_mae.py').read_text()
    (folder / 'fsdp.py').write_text(text + "\nrunner_type = 'FlexibleRunner'\nstrategy = dict(type='FSDPStrategy')\n")
    code, output = call(sys.executable, osp.join(ROOT, 'tools/train.py'), 'fsdp.py', cwd=folder)
    assert code == 1
    (error,) = [line for line in output.splitlines() if line.startswith('error: ')]
    assert "runner_type='FlexibleRunner' is for models" in error
    assert 'every process needs all of them' in error
    assert "type='mmmlo.MultiLevelDistributedDataParallel'" in error


def test_the_wrapper_of_one_loss_is_one_error(folder):
    options = ('--launcher', 'pytorch', '--cfg-options', 'model_wrapper_cfg=None')
    code, output = call(sys.executable, osp.join(ROOT, 'tools/train.py'), 'mlo_mae.py', *options, cwd=folder)
    assert code == 1
    assert "set model_wrapper_cfg=dict(type='mmmlo.MultiLevelDistributedDataParallel')" in output
