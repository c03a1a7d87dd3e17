"""A tiny data set in COCO's format, and detection configs cut down to it."""

import json

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

# Height and width of an image, in patches of 16 pixels.
SIZE = (64, 96)
WIDTH = 48
BLOCKS = 4


def write_coco(root, images: int = 4) -> None:
    """Write both splits of a data set below ``root``: rectangles of one colour, as boxes and polygons."""
    rng = np.random.default_rng(0)
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(_coco_classes())]
    for split in ('train2017', 'val2017'):
        (root / split).mkdir(parents=True)
        (root / 'annotations').mkdir(exist_ok=True)
        content = dict(images=[], annotations=[], categories=categories)
        for i in range(images):
            pixels = rng.integers(0, 60, (*SIZE, 3), dtype=np.uint8)
            content['images'].append(dict(id=i, file_name=f'{i}.jpg', height=SIZE[0], width=SIZE[1]))
            for left in (4, 52):
                box = [left, 8, 36, 44]
                pixels[8:52, left : left + 36] = 200
                x, y, width, height = box
                polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
                content['annotations'].append(
                    dict(
                        id=len(content['annotations']) + 1, image_id=i, category_id=3, bbox=box, area=width * height,
                        iscrowd=0, segmentation=[polygon])
                )  # fmt: skip
            Image.fromarray(pixels).save(root / split / f'{i}.jpg')
        (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))


def _coco_classes() -> tuple[str, ...]:
    from mmdet.datasets import CocoDataset

    return CocoDataset.METAINFO['classes']


@pytest.fixture(scope='session')
def data_folder(tmp_path_factory):
    """A folder with ``data/coco``."""
    root = tmp_path_factory.mktemp('detection')
    write_coco(root / 'data' / 'coco')
    return root


@pytest.fixture(scope='session')
def cut_down():
    """Make a detection config small: ``cut_down(cfg, iterations=2)`` returns it."""

    def cut_down(cfg: Config, iterations: int = 2) -> Config:
        model, channels = cfg.model, 16
        model.data_preprocessor.pad_size_divisor = SIZE[1]
        model.backbone.update(
            arch=dict(embed_dims=WIDTH, num_layers=BLOCKS, num_heads=4, feedforward_channels=2 * WIDTH),
            img_size=SIZE,
            window_size=3,
            global_blocks=1,
        )
        model.neck.update(in_channels=WIDTH, out_channels=channels)
        model.rpn_head.update(in_channels=channels, feat_channels=channels)
        heads = model.roi_head
        for extractor in (heads.bbox_roi_extractor, heads.mask_roi_extractor):
            extractor.out_channels = channels
        for head in heads.bbox_head if isinstance(heads.bbox_head, list) else [heads.bbox_head]:
            head.update(in_channels=channels, conv_out_channels=channels, fc_out_channels=32)
        heads.mask_head.update(in_channels=channels, conv_out_channels=channels)
        for part in model.train_cfg.rcnn if isinstance(model.train_cfg.rcnn, list) else [model.train_cfg.rcnn]:
            part.sampler.num = 16
        for part in (model.train_cfg.rpn_proposal, model.test_cfg.rpn):  # of thousands, most of the time
            part.update(nms_pre=100, max_per_img=50)
        # After two steps nothing is sure, and without a box there is no AP.
        model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=10)
        for split in ('train', 'val', 'test'):
            loader = cfg[f'{split}_dataloader']
            loader.update(batch_size=2 if split == 'train' else 1, num_workers=0, persistent_workers=False)
            for transform in loader.dataset.pipeline:
                for name, value in dict(scale=SIZE[::-1], crop_size=SIZE, size=SIZE[::-1]).items():
                    if name in transform:
                        transform[name] = value
                if transform.type == 'RandomResize':
                    transform.ratio_range = (1.0, 1.2)
        cfg.param_scheduler = []
        cfg.train_cfg.update(max_iters=iterations, val_interval=iterations)
        cfg.default_hooks.checkpoint.interval = 1
        cfg.default_hooks.logger.interval = 1
        return cfg

    return cut_down
