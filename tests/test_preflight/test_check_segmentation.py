"""Segmentation data as it is loaded: one line for what is wrong, before anything is built."""

import logging
import re

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmmlo.preflight.check_data import check_transfer
from mmmlo.preflight.check_segmentation import find_segmentation_problems
from mmmlo.utils.errors import DataError, MissingFileError

IMAGES, LABELS = 'images/training', 'annotations/training'
RNG = np.random.default_rng(0)


@pytest.fixture
def cfg(tmp_path):
    """A config over 30 images in ADE20K's layout, 8 x 6 pixels: 0 is other, 1 to 150 are the classes."""
    for split, count in (('training', 30), ('validation', 2)):
        for folder in ('images', 'annotations'):
            (tmp_path / folder / split).mkdir(parents=True)
        for i in range(count):
            write_image(tmp_path / f'images/{split}/{i:02}.jpg')
            write(tmp_path, RNG.integers(0, 151, (6, 8)), f'annotations/{split}/{i:02}.png')

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


@pytest.fixture
def own(cfg, tmp_path):
    """``own(labels, classes=2, **dataset)``: a config of one's own data, whose label maps have these values."""

    def build(labels, classes: int = 2, **dataset) -> Config:
        for split, count in (('training', 30), ('validation', 2)):
            for i in range(count):
                write(tmp_path, labels, f'annotations/{split}/{i:02}.png')
            name = 'train_dataloader' if split == 'training' else 'val_dataloader'
            base = dict(cfg[name].dataset, type='BaseSegDataset', metainfo=dict(classes=('sky', 'dog', 'cat')[:classes]))
            cfg[name].dataset = dict(base, **dataset)
        cfg.test_dataloader = None
        for head in ('decode_head', 'auxiliary_head'):
            cfg.model[head].num_classes = classes
        return cfg

    return build


def write(folder, labels, path: str = f'{LABELS}/00.png', dtype=np.uint8) -> None:
    """Write a label map of 8 x 6 pixels with some values, again and again, or an image."""
    labels = np.asarray(labels, dtype=dtype)
    Image.fromarray(labels if labels.ndim == 3 else np.resize(labels, (6, 8))).save(folder / path)


def write_image(path, size=(8, 6), orientation: int = 1) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RNG.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(path, 'JPEG', exif=exif)


def find(cfg: Config, count: int = 200) -> list:
    return list(find_segmentation_problems(cfg, count, lambda text: None))


def error(cfg: Config) -> str:
    """The first problem that is no warning."""
    return next(str(problem) for problem in find(cfg) if not problem.warning)


def warnings(cfg: Config) -> str:
    problems = find(cfg)
    assert all(problem.warning for problem in problems)
    return '\n'.join(map(str, problems))


def test_good_data_is_told_and_passes(cfg, tmp_path):
    write(tmp_path, [255])  # mmseg keeps 255 ignored when it reduces labels by one
    told: list[str] = []
    assert not list(find_segmentation_problems(cfg, 200, told.append))
    assert told[0] == f'train_dataloader.dataset: {tmp_path}/{IMAGES}: all 30 files are read' and len(told) == 2


def test_errors_come_together_and_warnings_are_logged(cfg, tmp_path, monkeypatch):
    logged: list = []
    monkeypatch.setattr('mmmlo.preflight.problems.print_log', lambda text, logger, level: logged.append((level, text)))
    write(tmp_path, [1], f'{LABELS}/lonely.png')
    check_transfer(cfg)
    assert logged[0][0] == logging.WARNING and logged[0][1].endswith('belong to no image that is read: lonely.png')
    write(tmp_path, [200])
    write(tmp_path, [200], 'annotations/validation/00.png')
    with pytest.raises(DataError, match='2 problems:\n  train_dataloader.*\n  val_dataloader'):
        check_transfer(cfg)


def test_labels_beyond_the_classes(cfg, tmp_path):
    write(tmp_path, [1, 150, 151, 200], f'{LABELS}/29.png')
    write(tmp_path, [151], f'{LABELS}/03.png')
    message = error(cfg)
    assert f'{LABELS}/03.png holds, as it is loaded, the labels 150;' in message and '(and 1 more of 30)' in message
    assert 'there are 150 classes, 0 to 149, and 255 is ignored' in message
    cfg.train_dataloader = None
    assert not find(cfg)
    write(tmp_path, [151], 'annotations/validation/01.png')
    assert 'annotations/validation/01.png holds' in error(cfg)


def test_labels_are_judged_as_the_dataset_loads_them(cfg, tmp_path):
    write(tmp_path, [0, 1, 150])
    assert not find(cfg)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].dataset.reduce_zero_label = cfg[name].dataset.pipeline[1].reduce_zero_label = False
    assert 'the labels 150;' in error(cfg)
    for name in ('decode_head', 'auxiliary_head'):
        cfg.model[name].ignore_index = 150
    cfg.val_dataloader = cfg.test_dataloader = None
    assert not find(cfg)
    cfg.model.auxiliary_head.ignore_index = 255  # what only one of the heads ignores is wrong for the other
    assert 'and nothing is ignored' in error(cfg)


def test_an_index_that_the_metric_does_not_ignore(cfg, tmp_path):
    write(tmp_path, [0], 'annotations/validation/00.png')
    cfg.train_dataloader = None
    cfg.val_evaluator.ignore_index = 7
    assert 'annotations/validation/00.png holds, as it is loaded, the labels 255;' in error(cfg)


def test_a_sample_of_many_files_is_read(cfg, tmp_path):
    for i in range(30):
        write(tmp_path, [151], f'{LABELS}/{i:02}.png')
    assert '(and 19 more of 20)' in str(find(cfg, 20)[0]) and str(find(cfg, 20)[0]) == str(find(cfg, 20)[0])


@pytest.mark.parametrize('reduce', [False, True])
def test_one_class_and_ignored_pixels(own, reduce):
    """Masks of 0 and 255, or of 0 and 1 of which 0 is made 255: nothing is left to tell apart."""
    for split, problem in zip(('train', 'val'), find(own([0, 1] if reduce else [0, 255], reduce_zero_label=reduce))):
        assert not problem.warning
        assert str(problem).startswith(f'{split}_dataloader.dataset: of 2 classes only sky occurs in the ')
        assert '50% of their pixels have the label 255, which is ignored' in problem.text
        assert ('reduce_zero_label=True makes 255 of 0' in problem.text) is reduce


def test_a_softmax_over_one_class(own):
    cfg = own([0, 1], classes=1, reduce_zero_label=True)
    assert error(cfg).startswith('model.decode_head.num_classes: a softmax over one output is always 1')
    for name in ('decode_head', 'auxiliary_head'):
        cfg.model[name].update(num_classes=2, out_channels=1, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))
    cfg = own([0, 1], reduce_zero_label=False)
    assert not find(cfg)
    cfg.model.decode_head.loss_decode = [dict(type='mmseg.CrossEntropyLoss')]
    assert error(cfg).startswith('model.decode_head.num_classes')


def test_classes_that_do_not_occur(own):
    assert 'cat of 3 classes never occur' in warnings(own([0, 1, 255], classes=3))
    assert 'of 3 classes only sky occurs' in warnings(own([0], classes=3))
    assert 'no class occurs' in error(own([255]))
    assert not find(own([0, 1, 2, 255], classes=3))


def test_labels_that_begin_at_one(own):
    assert error(own([1, 2])).endswith('The labels begin at 1: set reduce_zero_label=True')


def test_zero_is_reduced_in_training_alone(own):
    cfg = own([0, 1, 2])
    cfg.train_dataloader.dataset.reduce_zero_label = True
    cfg.val_dataloader.dataset.metainfo = dict(classes=('sky', 'dog', 'cat'))
    text = 'val_dataloader.dataset: reduce_zero_label is False here and not in train_dataloader'
    assert any(str(problem).startswith(text) for problem in find(cfg))
    cfg.train_dataloader.dataset.pipeline[1].reduce_zero_label = False  # the pipeline against its data set
    assert any('cannot be read as a label map (AssertionError' in str(problem) for problem in find(cfg))


@pytest.mark.parametrize(
    ('orientation', 'size', 'text'),
    [
        (1, (9, 6), r'00.jpg is loaded with 9 x 6 pixels, and its label .*00.png with 8 x 6$'),
        (6, (8, 6), r'is loaded with 6 x 8 pixels.*; its EXIF tag turns it.*color_ignore_orientation'),
        (3, (8, 6), 'is loaded turned by its EXIF tag: was .*00.png drawn on it like this'),
        (6, (6, 8), ''),  # drawn on the turned image
    ],
)
@pytest.mark.parametrize('split', ['training', 'validation'])
def test_sizes_and_turns(cfg, tmp_path, split, orientation, size, text):
    write_image(tmp_path / f'images/{split}/00.jpg', size, orientation)
    problems = find(cfg)
    assert len(problems) == bool(text)
    if text:
        assert problems[0].warning is (orientation == 3)
        assert re.search(text, problems[0].text)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].dataset.pipeline[0].color_type = 'color_ignore_orientation'
    text = {(1, (9, 6)): '8 x 6$', (3, (8, 6)): 'loaded as it is stored', (6, (6, 8)): 'leave that out if it was drawn on'}
    assert [bool(re.search(text[orientation, size], p.text)) for p in find(cfg)] == [True] * ((orientation, size) in text)


def test_files_without_a_partner(cfg, tmp_path):
    write(tmp_path, [1], f'{LABELS}/lonely.png')
    assert 'label files' in warnings(cfg) and 'belong to no image that is read: lonely.png' in warnings(cfg)
    (tmp_path / LABELS / '17.png').rename(tmp_path / LABELS / '17_mask.png')
    message = error(cfg)
    assert message.startswith('train_dataloader.dataset: 1 of 30 images have no label file')
    assert f'{IMAGES}/17.jpg should have' in message and f'in {tmp_path}/{LABELS} there are 17_mask.png' in message


def test_other_suffixes_are_named(cfg, tmp_path):
    folder = tmp_path / IMAGES
    for i in range(30):
        (folder / f'{i:02}.jpg').rename(folder / f'{i:02}.JPG')
    message = f"there is no image in {folder} whose name ends in '.jpg'; there are images in .JPG: set img_suffix='.JPG'"
    assert message in error(cfg)
    for i in range(2):
        (folder / f'{i:02}.JPG').rename(folder / f'{i:02}.jpg')
    assert f"28 of 30 images of {folder} are left out: they do not end in '.jpg', but 28 in .JPG" in warnings(cfg)
    (folder / '.ipynb_checkpoints').mkdir()
    write_image(folder / '.ipynb_checkpoints/00.jpg')
    assert '.ipynb_checkpoints/00.jpg should have' in error(cfg)  # mmseg would read it


def test_lists_of_files(cfg, tmp_path):
    names = tmp_path / 'train.txt'
    names.write_text('00\n01\n')
    cfg.train_dataloader.dataset.ann_file = str(names)
    assert not find(cfg)  # the others are left out on purpose
    names.write_text('00.jpg\n01.jpg\n')
    assert '2 of the 2 images' in error(cfg) and error(cfg).endswith('Names are listed without .jpg')


def test_empty_and_missing_folders(cfg, tmp_path):
    for path in (tmp_path / 'images/validation').iterdir():
        path.unlink()
    message = error(cfg)
    assert 'val_dataloader.dataset: there is no image in' in message and 'images/validation' in message
    assert message.endswith("ends in '.jpg'")
    cfg.val_dataloader.dataset.data_prefix.img_path = 'images/val'
    with pytest.raises(MissingFileError, match='`val_dataloader.dataset.data_prefix.img_path`: there is no folder .*/val'):
        find(cfg)


@pytest.mark.parametrize(
    ('content', 'problem'),
    [
        (b'no image', 'cannot be read as a label map'),
        (np.zeros((6, 8, 3)), 'has 3 channels; a label map has one, the number of the class'),
        (np.full((6, 8), 26001), 'holds numbers up to 26001; mmseg reads labels of 8 bits'),
        (np.full((6, 8), 150), None),
    ],
)
def test_files_that_are_no_label_maps(cfg, tmp_path, content, problem):
    if isinstance(content, bytes):
        (tmp_path / LABELS / '00.png').write_bytes(content)
    else:
        write(tmp_path, content, dtype=np.uint8 if content.ndim == 3 else np.uint16)
    assert f'{LABELS}/00.png {problem}' in error(cfg) if problem else not find(cfg)


def test_a_palette_is_read_as_numbers(own, tmp_path):
    cfg = own([0, 1])
    for path in tmp_path.glob('annotations/*/*.png'):
        label = Image.open(path).copy()
        label.putpalette([0, 0, 0, 220, 20, 60])
        label.save(path)
    assert Image.open(path).mode == 'P' and not find(cfg)
    (tmp_path / IMAGES / '07.jpg').write_bytes(b'')
    assert f'{IMAGES}/07.jpg cannot be read as an image' in error(cfg)


def test_heads_of_another_number_of_classes(cfg):
    cfg.model.auxiliary_head.num_classes = 19
    message = error(cfg)
    assert message.startswith('model.auxiliary_head.num_classes: 19, but ADE20KDataset')
    assert 'has 150 classes: wall' in message
    cfg.model.auxiliary_head = [dict(num_classes=150), dict(num_classes=21)]
    assert error(cfg).startswith('model.auxiliary_head.1.num_classes: 21')


def test_datasets_in_wrappers(cfg, tmp_path):
    write(tmp_path, [151])
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[cfg.train_dataloader.dataset])
    )
    assert error(cfg).startswith('train_dataloader.dataset.dataset.datasets[0]: ') and f'{LABELS}/00.png holds' in error(cfg)
