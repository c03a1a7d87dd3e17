"""Runs on folders in which some images are broken."""

import json
import os.path as osp
import sys

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from mmmlo.datasets.transforms import CorruptImageError
from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A tiny run on 400 training images of which a share is empty; ``config(share, workers=0, **loader)``."""

    def make(share: float, workers: int = 0, **loader) -> Config:
        rng = np.random.default_rng(0)
        for split, count in (('train', 200), ('test', 10)):
            for name in ('cat', 'dog'):
                folder = tmp_path / 'data/images' / split / name
                folder.mkdir(parents=True)
                for i in range(count):
                    cv2.imwrite(str(folder / f'{i}.png'), rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
                    if split == 'train' and i < share * count:
                        (folder / f'{i}.png').write_bytes(b'')
        monkeypatch.chdir(tmp_path)
        cfg = shrink(load_config(osp.join(ROOT, 'configs/mae/mae_vit-mini-p4_1xb128-coslr-50e_image-folder.py')))
        cfg.work_dir, cfg.experiment_name = str(tmp_path / 'run'), tmp_path.name
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.train_dataloader.pop('num_batch_per_epoch')
        cfg.train_dataloader.num_workers = workers
        cfg.train_dataloader.dataset.dataset.pipeline[0].update(loader)
        return cfg

    return make


@pytest.mark.parametrize('workers', [0, 2])
def test_one_per_cent_of_corrupt_images_is_survived(config, workers, tmp_path):
    runner = Runner.from_cfg(config(0.01, workers, on_corrupt='skip'))
    runner.train()
    assert runner.iter == 40  # 320 images of D_u, none of which is missing in a batch
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    skipped = [line for line in log.splitlines() if 'another takes its place' in line]
    assert len(skipped) == len({line.split('the image ')[1] for line in skipped}) >= 1


@pytest.mark.parametrize('workers', [0, 2])
def test_the_first_stops_the_run_and_is_named_unless_it_may_be_skipped(config, workers):
    with pytest.raises(CorruptImageError, match=r'cannot decode the image data/images/train/(cat|dog)/[01].png '):
        Runner.from_cfg(config(0.01, workers)).train()


def test_too_many_stop_the_run(config):
    with pytest.raises(CorruptImageError, match=r'images could not be decoded, the last one data/images/train/'):
        Runner.from_cfg(config(0.2, on_corrupt='skip')).train()


@pytest.mark.parametrize('workers', [0, 2])
def test_the_command_says_so_in_one_line(config, workers, tmp_path, monkeypatch, load_tool, capsys):
    config(0.5, workers).dump(tmp_path / 'config.py')
    monkeypatch.setattr(sys, 'argv', ['train.py', str(tmp_path / 'config.py'), '--work-dir', str(tmp_path / 'run')])
    with pytest.raises(SystemExit) as error:
        load_tool('train.py', status=1).main()
    assert error.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith('error: cannot decode the image data/images/train/')
    entry = json.loads((tmp_path / 'run/provenance.json').read_text())['runs'][0]
    assert entry['data']['train_dataloader']['images'] == 320
