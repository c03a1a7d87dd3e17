"""Folders of images in every format, with what else lies there."""

import logging

import numpy as np
import pytest
from mmpretrain.datasets import CustomDataset
from PIL import Image

from mmmlo.datasets import EXTENSIONS, ImageFolder, LoadImage, image_folder
from mmmlo.utils.errors import DataError

FORMATS = {'.jfif': 'JPEG', '.jpe': 'JPEG', '.ppm': 'PPM', '.pgm': 'PPM', '.pbm': 'PPM', '.pnm': 'PPM'}
MODES = {'.pgm': 'L', '.pbm': '1', '.gif': 'P'}


def write(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        ending = path.suffix.lower()
        Image.fromarray(pixels).convert(MODES.get(ending, 'RGB')).save(path, FORMATS.get(ending))


@pytest.fixture
def log(monkeypatch):
    """What is logged, as levels and texts."""
    lines = []
    monkeypatch.setattr(image_folder, 'print_log', lambda text, logger, level: lines.append((level, text)))
    return lines


def test_every_ending_is_decoded_in_any_case(tmp_path, log):
    for ending in EXTENSIONS:
        write(tmp_path / 'cat' / f'a{ending}', tmp_path / 'dog' / 'more' / f'B{ending.upper()}')
    dataset = ImageFolder(data_root=str(tmp_path), pipeline=[LoadImage()])
    assert len(dataset) == 2 * len(EXTENSIONS)
    assert {sample['img'].shape for sample in dataset} == {(12, 16, 3)}
    assert log == [(logging.INFO, f'{tmp_path}: all {len(dataset)} files are read')]


def test_order_and_classes_are_those_of_mmpretrain(tmp_path):
    write(*(tmp_path / name for name in ('a/2.png', 'a/10.png', 'a/b/0.png', 'a/a.png', 'a.b/0.png', 'B/1.jpg')))
    for labelled in (True, False):
        ours, theirs = (kind(data_root=str(tmp_path), with_label=labelled) for kind in (ImageFolder, CustomDataset))
        assert [ours.get_data_info(i) for i in range(len(ours))] == [theirs.get_data_info(i) for i in range(len(theirs))]
        assert ours.metainfo == theirs.metainfo


def test_hidden_names_are_neither_classes_nor_images(tmp_path):
    for split in ('train', 'test'):
        root = tmp_path / split
        write(*(root / name for name in ('cat/0.png', 'cat/1.png', 'dog/0.png', 'dog/1.png', 'cat/._0.png')))
        write(*(root / hidden / '0.png' for hidden in ('.ipynb_checkpoints', '__MACOSX', 'cat/.ipynb_checkpoints')))
        (root / '.empty').mkdir()
        dataset = ImageFolder(data_root=str(root))
        assert dataset.metainfo['classes'] == ('cat', 'dog')
        assert dataset.get_gt_labels().tolist() == [0, 0, 1, 1]
        assert len(ImageFolder(data_root=str(root), with_label=False)) == 4


def test_the_log_counts_once_what_is_left_out(tmp_path, log):
    write(tmp_path / 'cat/0.png', tmp_path / 'dog/0.WEBP', tmp_path / 'dog/1.webp', tmp_path / 'loose.png')
    for name in ('cat/a.txt', 'cat/README'):
        (tmp_path / name).touch()
    ImageFolder(data_root=str(tmp_path))
    ImageFolder(data_root=str(tmp_path))
    ImageFolder(data_root=str(tmp_path), extensions=['.PNG'])
    (tmp_path / 'loose.png').unlink()
    ImageFolder(data_root=str(tmp_path))
    loose = '1 .png outside of the folders of classes, 1 .txt, 1 without an ending are not'
    assert log == [
        (logging.WARNING, f'{tmp_path}: 3 of 6 files are read; {loose}'),
        (logging.WARNING, f'{tmp_path}: 1 of 6 files are read; 2 .webp, {loose}. There is no image for dog'),
        (logging.INFO, f'{tmp_path}: 3 of 5 files are read; 1 .txt, 1 without an ending are not'),
    ]


def test_nothing_to_read_and_other_classes(tmp_path):
    (tmp_path / 'cat').mkdir()
    (tmp_path / 'cat/0.heic').touch()
    with pytest.raises(DataError, match=r'no image to read: 0 of 1 files are read; 1 \.heic are not\. Endings .*\.webp'):
        ImageFolder(data_root=str(tmp_path))
    write(tmp_path / 'cat/0.png')
    with pytest.raises(DataError, match='holds 1 folders of classes, cat, and `classes` names 2'):
        ImageFolder(data_root=str(tmp_path), classes=['cat', 'dog'])
