"""Runs of tools/train.py in which a level meets images that are not finite, and the replay of what ends them."""

import copy
import json
import os.path as osp
import re

import pytest
import torch
from mmengine.config import Config

from mmmlo.datasets import SplitDataset
from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink
from mmmlo.utils.checkpoints import read_content

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
LEVELS = ('pretrain', 'finetune', 'masking')
LINE = re.compile(
    r"iteration (\d+): a loss or gradient of level '(\w+)' is not finite, and the step is left out: (\d+) in a row, "
    r'(\d+) in the run\. Images: (.*)'
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory, labelled_folder):
    """Where the runs are, with the images and a transform that spoils some of them."""
    folder = tmp_path_factory.mktemp('non_finite')
    (folder / 'data').mkdir()
    (folder / 'data/images').symlink_to(labelled_folder)
    (folder / 'spoiling.py').write_text(
        """import numpy as np
from mmengine.registry import TRANSFORMS

@TRANSFORMS.register_module()
class Spoil:
    \"\"\"A pixel of images whose path ends like this is no number.\"\"\"

    def __init__(self, ending):
        self.ending = ending

    def __call__(self, results):
        results['img'] = results['img'].astype(np.float32)
        if results['img_path'].endswith(self.ending):
            results['img'][0, 0] = np.nan
        return results
"""
    )
    return folder


@pytest.fixture
def config(folder, monkeypatch):
    """A tiny MLO-MAE of 12 iterations, 2 epochs; ``config(**endings)`` spoils a level's images whose paths end so."""
    monkeypatch.chdir(folder)
    path = osp.join(ROOT, 'configs/mlo_mae/mlo-mae_vit-mini-p4_1xb128-coslr-50e_image-folder.py')
    cfg = shrink(load_config(path), cycles=6)
    cfg.custom_imports = dict(imports=['spoiling'])
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=1)
    cfg.default_hooks.logger.interval = 1
    cfg.log_processor.window_size = 1

    def make(**endings: str) -> Config:
        made = copy.deepcopy(cfg)
        loaders = dict(pretrain=made.train_dataloader, **made.train_cfg.dataloaders)
        for level, ending in endings.items():
            pipeline = loaders[level].dataset.dataset.pipeline
            pipeline.insert(len(pipeline) - 1, dict(type='Spoil', ending=ending))
        return made

    return make


@pytest.fixture
def run(folder, fork_server):
    """``run(name, cfg, *arguments)``: the exit code of tools/train.py and what it printed."""

    def train(name, cfg, *arguments):
        cfg.dump(folder / f'{name}.py')
        return call(f'{name}.py', '--work-dir', name, *arguments)

    def call(*arguments, **more):
        (folder / 'output.txt').unlink(missing_ok=True)
        process = fork_server.start(*arguments, cwd=folder, environment=dict(PYTHONPATH=str(folder)), **more)
        return fork_server.wait(process), (folder / 'output.txt').read_text()

    train.tool = call
    return train


def image(part: str, index: int) -> str:
    """An image of a part of the training split."""
    images = dict(type='mmpretrain.CustomDataset', data_root='data/images', data_prefix='train', pipeline=[])
    return SplitDataset(images, part=part).get_data_info(index)['img_path']


def finite(checkpoint: dict) -> bool:
    return all(bool(value.isfinite().all()) for value in checkpoint['state_dict'].values() if torch.is_tensor(value))


def test_a_bad_image_of_each_level_costs_its_steps(config, run, folder):
    bad = dict(pretrain=image('train', 5), finetune=image('train', 25), masking=image('val', 5))
    code, output = run('some', config(**bad))
    assert code == 0, output
    told = [match.groups() for line in output.splitlines() if (match := LINE.search(line))]
    skipped = {level: [] for level in LEVELS}
    for iteration, level, _, count, images in told:
        skipped[level].append(int(iteration))
        assert int(count) == len(skipped[level])
        lower = {i for name in LEVELS[: LEVELS.index(level)] for i in skipped[name]}
        # A hypergradient is of the lower levels' batches too.
        assert bad[level] in images or level == 'masking' and int(iteration) in lower
    assert len(skipped['pretrain']) == 2  # once an epoch
    assert len(skipped['finetune']) == 1 and skipped['masking']
    last = read_content((folder / 'some/last_checkpoint').read_text())
    assert last['meta']['iter'] == 12 and finite(last)
    assert last['optimizer']['skip_counts'] == {level: len(iterations) for level, iterations in skipped.items()}
    (scalars,) = folder.glob('some/*/vis_data/scalars.json')
    logged = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert [line['step'] for line in logged if 'pretrain/skips' in line][:1] == skipped['pretrain'][:1]


@pytest.mark.parametrize('level', LEVELS)
def test_three_in_a_row_end_the_run_with_the_last_good_state_and_a_dump(level, config, run, folder):
    cfg = config(**{level: ''})
    cfg.default_hooks.non_finite_guard.max_in_a_row = 3
    code, output = run(level, cfg)
    iteration = 3 if level == 'pretrain' else 6  # of two iterations a cycle
    dump = f'{level}/non_finite_{level}_iter_{iteration}.pth'
    kept = osp.realpath(folder / f'{level}/iter_{iteration - 1}.pth')
    assert code == 1
    assert output.splitlines()[-1] == (
        f"error: iteration {iteration}: a loss or gradient of level '{level}' is not finite, 3 times in a row. The "
        f'weights are still those of before. The last checkpoint is {kept}. To run this step again: python '
        f'tools/analysis_tools/replay_batch.py {osp.realpath(folder / dump)}'
    )
    assert 'Traceback' not in output
    assert finite(read_content(kept))

    code, output = run.tool(dump, '--device', 'cpu', script='analysis_tools/replay_batch.py')
    assert code == 1
    assert f'{dump}: iteration {iteration}, level {level}\n' in output and 'loss: nan' in output
    assert 'images that are not finite, by their place in the batch: 0, 1' in output

    if level == 'masking':
        code, output = run(level, config(), '--resume')  # with the images as they should have been
        assert code == 0, output
        assert f'resumed epoch: 0, iter: {iteration - 1}' in output
        last = read_content((folder / f'{level}/last_checkpoint').read_text())
        assert finite(last) and last['optimizer']['skip_counts'][level] == 2  # those before the checkpoint
