"""Bad segmentation data: one error each, before anything is built."""

import time

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmmlo.preflight.check_segmentation import check_segmentation_data
from mmmlo.utils.errors import MmmloError

IMAGES, LABELS = 'images/training', 'annotations/training'


@pytest.fixture
def cfg(tmp_path):
    """A config over 30 images in ADE20K's layout, 8 x 6 pixels: 0 is other, 1 to 150 are the classes."""
    rng = np.random.default_rng(0)
    for split, count in (('training', 30), ('validation', 2)):
        for folder in ('images', 'annotations'):
            (tmp_path / folder / split).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / f'images/{split}/{i:02}.jpg')
            write(tmp_path, rng.integers(0, 151, (6, 8)), f'annotations/{split}/{i:02}.png')

    def loader(split: str) -> dict:
        return dict(
            dataset=dict(
                type='ADE20KDataset',
                data_root=str(tmp_path),
                data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}'),
                pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')],
            )
        )

    head = dict(type='FCNHead', in_channels=4, channels=4, num_classes=150)
    return Config(
        dict(
            default_scope='mmseg',
            model=dict(type='EncoderDecoder', decode_head=head, auxiliary_head=dict(head)),
            train_dataloader=loader('training'),
            val_dataloader=loader('validation'),
            test_dataloader=loader('validation'),
            val_evaluator=dict(type='IoUMetric'),
            test_evaluator=[dict(type='IoUMetric')],
        )
    )


def write(folder, labels, path: str = f'{LABELS}/00.png') -> None:
    """Write a label map of 8 x 6 pixels with some values, again and again, or an image."""
    labels = np.asarray(labels, dtype=np.uint8)
    Image.fromarray(labels if labels.ndim == 3 else np.resize(labels, (6, 8))).save(folder / path)


def error(cfg: Config) -> str:
    with pytest.raises(MmmloError) as info:
        check_segmentation_data(cfg)
    return str(info.value)


def test_good_data_passes_within_two_seconds(cfg, tmp_path):
    write(tmp_path, [255])  # mmseg keeps 255 ignored when it reduces labels by one
    check_segmentation_data(cfg)  # imports what it needs
    start = time.perf_counter()
    check_segmentation_data(cfg)
    assert time.perf_counter() - start < 2


def test_labels_beyond_the_classes(cfg, tmp_path):
    write(tmp_path, [1, 150, 151, 200], f'{LABELS}/29.png')
    message = error(cfg)
    assert f'{LABELS}/29.png holds, as it is loaded, the labels 150, 199;' in message
    assert 'there are 150 classes, 0 to 149, and 255 is ignored' in message
    cfg.train_dataloader = None
    check_segmentation_data(cfg)
    write(tmp_path, [151], 'annotations/validation/01.png')
    assert 'annotations/validation/01.png holds' in error(cfg)


def test_labels_are_judged_as_the_dataset_loads_them(cfg, tmp_path):
    write(tmp_path, [0, 1, 150])
    check_segmentation_data(cfg)
    cfg.train_dataloader.dataset.reduce_zero_label = False
    cfg.train_dataloader.dataset.pipeline[1].reduce_zero_label = False
    assert 'the labels 150;' in error(cfg)
    for name in ('decode_head', 'auxiliary_head'):
        cfg.model[name].ignore_index = 150
    check_segmentation_data(cfg)
    cfg.model.auxiliary_head.ignore_index = 255  # what only one of the heads ignores is wrong for the other
    assert 'and nothing is ignored' in error(cfg)


def test_an_index_that_the_metric_does_not_ignore(cfg, tmp_path):
    write(tmp_path, [0], 'annotations/validation/00.png')
    cfg.train_dataloader = None
    cfg.val_evaluator.ignore_index = 7
    assert 'annotations/validation/00.png holds, as it is loaded, the labels 255;' in error(cfg)


def test_some_label_files_of_many_are_read(cfg, tmp_path):
    read = []
    for i in range(30):
        write(tmp_path, [151], f'{LABELS}/{i:02}.png')
        try:
            check_segmentation_data(cfg)
        except ValueError:
            read.append(i)
        write(tmp_path, [1], f'{LABELS}/{i:02}.png')
    assert len(read) == 21 and {0, 29} < set(read) and max(np.diff(read)) == 2


def test_an_image_without_a_label_file(cfg, tmp_path):
    (tmp_path / LABELS / '17.png').unlink()
    message = error(cfg)
    assert '`train_dataloader.dataset`: 1 of 30 images have no label file' in message
    assert f'{IMAGES}/17.jpg should have' in message and f'{LABELS}/17.png' in message


def test_empty_and_missing_folders(cfg, tmp_path):
    for path in (tmp_path / 'images/validation').iterdir():
        path.unlink()
    message = error(cfg)
    assert '`val_dataloader.dataset`: there is no image in' in message and 'images/validation' in message
    assert "ends in '.jpg'" in message
    cfg.val_dataloader.dataset.data_prefix.img_path = 'images/val'
    message = error(cfg)
    assert '`val_dataloader.dataset.data_prefix.img_path`: there is no folder' in message and 'images/val' in message


@pytest.mark.parametrize(('content', 'problem'), [
    (b'no image', 'cannot be read as a label map'),
    (None, 'has 3 channels; a label map has one, the number of the class'),
])  # fmt: skip
def test_files_that_are_no_label_maps(cfg, tmp_path, content, problem):
    if content is None:
        write(tmp_path, np.zeros((6, 8, 3)))
    else:
        (tmp_path / LABELS / '00.png').write_bytes(content)
    message = error(cfg)
    assert f'{LABELS}/00.png {problem}' in message


def test_heads_of_another_number_of_classes(cfg):
    cfg.model.auxiliary_head.num_classes = 19
    message = error(cfg)
    assert '`model.auxiliary_head.num_classes` is 19, but ADE20KDataset' in message and 'has 150 classes: wall' in message
    cfg.model.auxiliary_head = [dict(num_classes=150), dict(num_classes=21)]
    assert '`model.auxiliary_head[1].num_classes` is 21' in error(cfg)


def test_datasets_in_wrappers(cfg, tmp_path):
    write(tmp_path, [151])
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[cfg.train_dataloader.dataset])
    )
    assert f'{LABELS}/00.png holds' in error(cfg)
    (tmp_path / LABELS / '17.png').unlink()
    assert '`train_dataloader.dataset.dataset.datasets[0]`: 1 of 30' in error(cfg)
