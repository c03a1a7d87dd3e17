"""Faults of the data, by the loaders of all frameworks, in the main process and in workers: one line with the key."""

import json

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image
from torch.utils.data import DataLoader

from mmmlo.launch.data_errors import data_errors
from mmmlo.utils.errors import DataError, MissingFileError

PRETRAIN = dict(type='mmpretrain.CustomDataset', data_prefix='train', pipeline=[dict(type='LoadImageFromFile')])
SEGMENT = dict(
    type='mmseg.BaseSegDataset', data_prefix=dict(img_path='images', seg_map_path='labels'), img_suffix='.png',
    pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')])
DETECT = dict(
    type='mmdet.CocoDataset', data_prefix=dict(img='images/'), ann_file='boxes.json', test_mode=True,
    pipeline=[dict(type='LoadImageFromFile')])


@pytest.fixture
def root(tmp_path):
    """A folder that each of the three data sets finds an image in."""
    for name in ('train/a/0.png', 'images/0.png', 'labels/0.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name)
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(('person', 'bicycle'))]
    images = [dict(id=1, file_name='0.png', height=8, width=8)]
    (tmp_path / 'boxes.json').write_text(json.dumps(dict(images=images, annotations=[], categories=categories)))
    return tmp_path


def read(dataset, root, workers=0):
    """What is said when a run reads the data set."""
    cfg = Config(dict(default_scope=dataset['type'].split('.')[0], work_dir=str(root),
                      test_dataloader=dict(dataset=dict(dataset, data_root=str(root)))))
    told = pytest.raises((DataError, MissingFileError))
    with DefaultScope.overwrite_default_scope(cfg.default_scope), told as error, data_errors(cfg):
        next(iter(DataLoader(DATASETS.build(cfg.test_dataloader.dataset), collate_fn=list, num_workers=workers)))
    assert '\n' not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ('dataset', 'folder', 'key'),
    [
        (PRETRAIN, 'train', 'data_prefix`: there is no folder'),
        (SEGMENT, 'images', 'data_prefix.img_path`: there is no folder'),
        (DETECT, 'boxes.json', 'ann_file`: there is no file'),
    ],
)
def test_no_such_folder_or_file(root, dataset, folder, key):
    (root / folder).rename(root / 'elsewhere')
    assert read(dataset, root).startswith(f'`test_dataloader.dataset.{key} {root / folder}')


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize(
    ('dataset', 'image', 'key'),
    [
        (PRETRAIN, 'train/a/0.png', 'data_prefix'),
        (SEGMENT, 'images/0.png', 'data_prefix.img_path'),
        (DETECT, 'images/0.png', 'data_prefix.img'),
    ],
)
def test_an_image_that_is_torn_or_none(root, dataset, image, key, workers):
    (root / image).write_bytes((root / image).read_bytes()[:20] if workers else b'text')
    said = read(dataset, root, workers)
    assert said.startswith(f'`test_dataloader.dataset.{key}`: AssertionError: failed to load image: {root / image}')


def test_an_image_that_is_listed_and_not_there(root):
    (root / 'images/0.png').unlink()
    assert read(DETECT, root, workers=1).startswith('`test_dataloader.dataset.data_prefix.img`: FileNotFoundError: ')


@pytest.mark.parametrize(
    ('dataset', 'text', 'words'),
    [
        (dict(DETECT), '{"images": ', 'data_root`: JSONDecodeError: '),
        (dict(PRETRAIN, classes=['a', 'b']), '', "data_root`: AssertionError: The number of subfolders (1) doesn't match"),
    ],
)
def test_annotations_that_cannot_be_read_and_other_classes(root, dataset, text, words):
    (root / 'boxes.json').write_text(text)
    assert read(dataset, root).startswith(f'`test_dataloader.dataset.{words}')


def test_faults_elsewhere_keep_their_type():
    with pytest.raises(RuntimeError, match='out of memory'), data_errors(Config()):
        raise RuntimeError('out of memory')
