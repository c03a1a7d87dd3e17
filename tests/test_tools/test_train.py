"""The command-line tools as a user runs them."""

import json
import os
import os.path as osp
import subprocess
import sys

import pytest

from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))


def call(*arguments, cwd):
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=500,
        env=dict(os.environ, OMP_NUM_THREADS='1'),
    )
    return result.returncode, result.stdout + result.stderr


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A shrunken config of digits and its work dir after tools/train.py --amp."""
    folder = tmp_path_factory.mktemp('train')
    cfg = shrink(load_config(osp.join(ROOT, 'configs/mlo_mae/mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py')))
    cfg.default_hooks.checkpoint.interval = 1
    cfg.dump(folder / 'tiny.py')
    code, output = call(osp.join(ROOT, 'tools/train.py'), 'tiny.py', '--amp', cwd=folder)
    assert code == 0, output
    return folder, output


def test_train_writes_where_the_config_s_name_says(trained):
    folder, output = trained
    assert (folder / 'work_dirs/tiny/epoch_1.pth').is_file()
    assert "Levels ['pretrain', 'finetune', 'masking']" in output
    assert 'BFloat16OptimWrapper' in (folder / 'work_dirs/tiny/tiny.py').read_text()


def test_the_console_is_short_and_the_log_file_is_whole(trained):
    folder, output = trained
    before = output[:output.index('Saving checkpoint')]
    assert len(before.splitlines()) < 60 and 'paramwise_options' not in before and 'config in tiny.py' in before
    (log, ) = (folder / 'work_dirs/tiny').rglob('*.log')
    for words in ('System environment:', 'Config:', 'Hooks will be executed', 'paramwise_options -- backbone'):
        assert words in log.read_text()


def test_test_reports_knn_of_the_test_split(trained):
    folder, _ = trained
    checkpoint = folder / 'work_dirs/tiny/epoch_1.pth'
    code, output = call(osp.join(ROOT, 'tools/test.py'), 'tiny.py', checkpoint, '--amp', '--out', 'metrics.json', cwd=folder)
    assert code == 0, output
    assert 0 <= json.loads((folder / 'metrics.json').read_text())['knn/top1'] <= 100
    code, output = call(osp.join(ROOT, 'tools/test.py'), 'tiny.py', 'no.pth', cwd=folder)
    assert code == 2
    assert 'checkpoint no.pth does not exist' in output


def test_resume_goes_on_from_the_latest(trained):
    folder, _ = trained
    options = ['--resume', '--cfg-options', 'train_cfg.max_iters=6', '--work-dir', 'work_dirs/tiny', '--no-validate']
    code, output = call(osp.join(ROOT, 'tools/train.py'), 'tiny.py', *options, '--resume-settings', 'config', cwd=folder)
    assert code == 0, output
    assert 'resumed epoch: 1, iter: 4' in output


def test_wrong_command_lines(trained):
    folder, _ = trained
    code, output = call(osp.join(ROOT, 'tools/train.py'), 'absent.py', cwd=folder)
    assert code == 1
    assert 'config absent.py does not exist' in output
    lines = (folder / 'tiny.py').read_text()
    (folder / 'unscaled.py').write_text(lines[: lines.index('auto_scale_lr')] + lines[lines.index('custom_hooks') :])
    code, output = call(osp.join(ROOT, 'tools/train.py'), 'unscaled.py', '--auto-scale-lr', cwd=folder)
    assert code == 1
    assert 'has no auto_scale_lr.base_batch_size' in output


@pytest.mark.slow
def test_quickstart_writes_what_it_says(tmp_path):
    code, output = call(osp.join(ROOT, 'tools/quickstart.py'), '--work-dir', tmp_path, cwd=tmp_path)
    assert code == 0, output
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert list(summary['methods']) == ['MAE', 'contrast', 'guided MAE', 'oracle'] and summary['pretrain_steps'] == 560
    assert summary['methods']['MAE']['share_of_oracle'] == 0 and summary['methods']['oracle']['share_of_oracle'] == 1
    assert summary['methods']['contrast']['auc'] > 0.7
    for picture in ('losses.png', 'masks.png', 'report.html'):
        assert (tmp_path / picture).stat().st_size > 10_000
