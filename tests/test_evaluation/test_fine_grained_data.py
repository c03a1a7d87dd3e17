"""Named data sets of one kind of thing: their configs, one error for a missing or wrong folder, small fake folders."""

import cv2
import mat4py
import numpy as np
import pytest

from mmmlo.evaluation.data import NAMED_DATA, find_data
from mmmlo.registry import DATASETS
from mmmlo.utils.errors import DataError

NAMES = ('cub', 'cars', 'food101', 'flowers102', 'pets', 'aircraft', 'inat2019')


@pytest.mark.parametrize('name', NAMES)
def test_the_class_is_registered_and_an_absent_folder_is_one_error(name, tmp_path):
    data = find_data(name)
    for split in ('train', 'test'):
        config = data.config(split, (224, 224))
        with DATASETS.switch_scope_and_registry('mmpretrain') as registry:
            assert registry.get(config['type']) is not None
        assert config['data_root'] == f'data/{name}'
        assert [transform['type'] for transform in config['pipeline']][:2] == ['mmmlo.LoadImage', 'ResizeEdge']
    absent = find_data(name, str(tmp_path / 'absent'))
    with pytest.raises(DataError, match='there is no folder .*absent.* It must hold .*--data-root names another'):
        absent.build('train', (32, 32))


@pytest.mark.parametrize('name', NAMES)
def test_a_folder_that_holds_something_else(name, tmp_path):
    (tmp_path / 'images').mkdir()
    with pytest.raises(DataError, match=f'--data {name}') as error:
        find_data(name, str(tmp_path)).build('train', (32, 32))
    assert str(tmp_path) in str(error.value)


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((20, 24, 3), 90, dtype=np.uint8))


def test_pets(tmp_path):
    (tmp_path / 'annotations').mkdir()
    for split in ('trainval', 'test'):
        lines = [f'{split}_{label} {label} 1 1' for label in range(1, 38)]
        (tmp_path / 'annotations' / f'{split}.txt').write_text('\n'.join(lines) + '\n')
        for label in range(1, 38):
            image(tmp_path / 'images' / f'{split}_{label}.jpg')
    data = find_data('pets', str(tmp_path))
    assert [len(data.build(split, (16, 16))) for split in ('train', 'test')] == [37, 37]
    assert data.build('test', (16, 16))[0]['inputs'].shape == (3, 16, 16)
    data.check((16, 16))


def test_flowers_have_classes_and_train_on_train_and_val(tmp_path):
    for i in range(1, 307):
        image(tmp_path / 'jpg' / f'image_{i:05d}.jpg')
    mat4py.savemat(str(tmp_path / 'imagelabels.mat'), dict(labels=[i % 102 + 1 for i in range(306)]))
    parts = [list(range(start, start + 102)) for start in (1, 103, 205)]
    mat4py.savemat(str(tmp_path / 'setid.mat'), dict(zip(('trnid', 'valid', 'tstid'), parts)))
    data = find_data('flowers102', str(tmp_path))
    train, test = (data.build(split, (16, 16)) for split in ('train', 'test'))
    assert (len(train), len(test)) == (204, 102) and len(train.metainfo['classes']) == 102
    data.check((16, 16))


def test_every_name_has_both_splits():
    for name in NAMED_DATA:
        assert set(find_data(name).splits) == {'train', 'test'}
