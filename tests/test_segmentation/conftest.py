"""Tiny data in the two layouts, and configs cut down to it."""

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

# Height and width of a crop: not square, in patches of 16 pixels.
CROP = (64, 80)
WIDTH = 48
BLOCKS = 4


@pytest.fixture(scope='session')
def data_folder(tmp_path_factory):
    """A folder with ``data/ade/ADEChallengeData2016`` and ``data/camvid``: four images of 64 x 48 pixels in each split."""
    root = tmp_path_factory.mktemp('segmentation')
    rng = np.random.default_rng(0)
    layouts = {'ade/ADEChallengeData2016': (('training', 'validation'), 150), 'camvid': (('train', 'val'), 11)}
    for name, (splits, largest) in layouts.items():
        for split in splits:
            for kind in ('images', 'annotations'):
                (root / 'data' / name / kind / split).mkdir(parents=True)
            for i in range(4):
                # One class a quarter, of its own colour, so that there is something to learn.
                labels = rng.integers(0, largest + 1, (2, 2), dtype=np.uint8).repeat(24, 0).repeat(32, 1)
                image = np.stack([labels, 255 - labels, labels // 2], axis=-1)
                Image.fromarray(image).save(root / 'data' / name / 'images' / split / f'{i}.jpg')
                Image.fromarray(labels).save(root / 'data' / name / 'annotations' / split / f'{i}.png')
    return root


@pytest.fixture(scope='session')
def cut_down():
    """Make a segmentation config small: ``cut_down(cfg, iterations=2)`` returns it."""

    def cut_down(cfg: Config, iterations: int = 2) -> Config:
        model = cfg.model
        model.backbone.update(
            arch=dict(embed_dims=WIDTH, num_layers=BLOCKS, num_heads=4, feedforward_channels=2 * WIDTH), img_size=CROP
        )
        model.data_preprocessor.size = CROP
        if 'frozen_stages' in model.backbone:
            model.backbone.frozen_stages = BLOCKS
            model.decode_head.in_channels = WIDTH
        else:
            model.backbone.out_indices = [0, 1, 2, 3]
            model.neck.embed_dim = WIDTH
            model.decode_head.update(in_channels=[WIDTH] * 4, channels=16)
            model.auxiliary_head.update(in_channels=WIDTH, channels=16)
        if model.test_cfg.mode == 'slide':
            model.test_cfg.update(crop_size=CROP, stride=(43, 53))
        for split in ('train', 'val', 'test'):
            loader = cfg[f'{split}_dataloader']
            loader.update(batch_size=2 if split == 'train' else 1, num_workers=0, persistent_workers=False)
            for transform in loader.dataset.pipeline:
                if transform.type in ('Resize', 'RandomResize'):
                    transform.scale = (320, 64)
                elif transform.type == 'RandomCrop':
                    transform.crop_size = CROP
        # From the first iteration on at a rate that shows.
        cfg.param_scheduler = []
        cfg.train_cfg.update(max_iters=iterations, val_interval=iterations)
        cfg.default_hooks.checkpoint.interval = 1
        cfg.default_hooks.logger.interval = 1
        return cfg

    return cut_down
