import os
import shutil

import pytest

from mmmlo.evaluation.data import find_data
from mmmlo.utils.errors import DataError


def test_a_folder_is_two_splits_of_its_classes(labelled_folder):
    data = find_data(str(labelled_folder))
    train, test = (data.build(split, (16, 16)) for split in ('train', 'test'))
    assert (len(train), len(test)) == (60, 24)
    assert train.metainfo['classes'] == test.metainfo['classes'] == ('blue', 'green', 'red')
    assert train[0]['inputs'].shape == (3, 16, 16)
    data.check((16, 16))


def test_val_stands_in_for_test(labelled_folder, tmp_path):
    shutil.copytree(labelled_folder, tmp_path / 'data')
    (tmp_path / 'data' / 'test').rename(tmp_path / 'data' / 'val')
    assert len(find_data(str(tmp_path / 'data')).build('test', (16, 16))) == 24


def test_names(tmp_path):
    assert len(find_data('digits').build('test', (32, 32))) == 359
    assert find_data('imagenet', str(tmp_path)).splits['test'] == dict(type='ImageNet', data_root=str(tmp_path), split='val')
    assert find_data('cifar100').splits['train']['data_root'] == 'data/cifar100'


@pytest.mark.parametrize(
    ('size', 'types'),
    [
        ((32, 32), ['mmmlo.LoadImage', 'Resize', 'PackInputs']),
        ((224, 224), ['mmmlo.LoadImage', 'ResizeEdge', 'CenterCrop', 'PackInputs']),
        ((160, 192), ['mmmlo.LoadImage', 'Resize', 'PackInputs']),
    ],
)
def test_images_arrive_at_the_encoder_s_size(labelled_folder, size, types):
    data = find_data(str(labelled_folder))
    assert [transform['type'] for transform in data.config('test', size)['pipeline']] == types
    assert data.build('test', size)[0]['inputs'].shape == (3, *size)


def folder(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b'')
    return str(root)


@pytest.mark.parametrize(
    ('paths', 'words'),
    [
        ([], 'holds nothing; it needs train/<class>/'),
        (['a/1.png', 'b/1.png'], 'holds a, b; it needs train/<class>/'),
        (['train/1.png', 'train/2.png', 'test/a/1.png'], r'train holds no image to read: .*2 \.png outside of'),
        (['train/a/1.png', 'test/a/1.png'], 'holds the one class a'),
        (['train/a/1.png', 'train/b/1.png', 'test/a/1.png', 'test/c/1.png'], 'train split` lacks c and .* lacks b'),
    ],
)
def test_a_folder_without_labels_or_splits(tmp_path, paths, words):
    with pytest.raises(DataError, match=words):
        find_data(folder(tmp_path, *paths)).check((16, 16))


def test_neither_name_nor_folder():
    with pytest.raises(DataError, match='--data cifar is neither a folder nor one of .*cifar10, cifar100'):
        find_data('cifar')


def test_a_class_may_be_empty_in_the_test_split_alone(labelled_folder, tmp_path):
    shutil.copytree(labelled_folder, tmp_path / 'data')
    for split in ('test', 'train'):
        for name in os.listdir(tmp_path / 'data' / split / 'red'):
            os.remove(tmp_path / 'data' / split / 'red' / name)
        if split == 'test':
            find_data(str(tmp_path / 'data')).check((16, 16))
    with pytest.raises(DataError, match='--data data, train split: no image for class red'):
        find_data(str(tmp_path / 'data')).check((16, 16))


def test_a_link_to_the_training_images_is_no_test_split(labelled_folder, tmp_path):
    for split in ('train', 'test'):
        os.symlink(labelled_folder / 'train', tmp_path / split)
    with pytest.raises(DataError, match='shares 60 of its 60 images with the training split'):
        find_data(str(tmp_path)).check((16, 16))


def test_the_fingerprint_is_of_content_and_pipeline(labelled_folder, tmp_path):
    shutil.copytree(labelled_folder, tmp_path / 'data')

    def fingerprint(size=(16, 16), split='train'):
        return find_data(str(tmp_path / 'data')).fingerprint(split, size)

    first = fingerprint()
    assert fingerprint() == first
    assert len({first, fingerprint((20, 20)), fingerprint(split='test')}) == 3
    os.utime(tmp_path / 'data/train/red/3.png', (1, 1))
    assert fingerprint() != first
    digits = find_data('digits')
    assert digits.fingerprint('train', (32, 32)) != digits.fingerprint('test', (32, 32))
