"""Folders of well-known data sets, whole and broken, in their real formats."""

import json
import pickle

import cv2
import numpy as np
import pytest

from mmmlo.preflight.layouts import check_layout, split_files


def write_image(path, shape=(12, 16, 3), value=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full(shape, value, np.uint8))


@pytest.fixture
def ade(tmp_path):
    for split, stems in dict(training=('a', 'b'), validation=('c', )).items():
        for stem in stems:
            write_image(tmp_path / 'ADEChallengeData2016' / 'images' / split / f'{stem}.jpg')
            write_image(tmp_path / 'ADEChallengeData2016' / 'annotations' / split / f'{stem}.png', (12, 16), 150)
    return tmp_path


@pytest.fixture
def coco(tmp_path):
    categories = [dict(id=i, name=f'thing {i}') for i in range(80)]
    for split in ('train2017', 'val2017'):
        write_image(tmp_path / split / '1.jpg')
        content = dict(
            images=[dict(id=1, file_name='1.jpg', height=12, width=16)],
            annotations=[dict(id=1, image_id=1, category_id=3, bbox=[1, 2, 3, 4])],
            categories=categories,
        )
        (tmp_path / 'annotations').mkdir(exist_ok=True)
        (tmp_path / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def imagenet(tmp_path):
    for split in ('train', 'val'):
        for name in ('n01', 'n02'):
            write_image(tmp_path / split / name / 'x.JPEG')
    return tmp_path


def problems(name, root):
    return '\n'.join(check_layout(name, str(root)).problems)


def test_ade20k_is_found_with_and_without_its_own_folder(ade):
    for root in (ade, ade / 'ADEChallengeData2016'):
        report = check_layout('ade20k', str(root))
        assert not report.problems
        assert report.facts == [
            'training images: 2',
            'training sample a: 16 x 12 pixels, 1 label values from 150 to 150',
            'validation images: 1',
            'validation sample c: 16 x 12 pixels, 1 label values from 150 to 150',
        ]
        assert report.incomplete[0] == 'training images: 2, and the official release has 20,210'


def test_segmentation_labels_are_looked_at(ade):
    root = ade / 'ADEChallengeData2016'
    labels = root / 'annotations'
    write_image(labels / 'training' / 'a.png', (12, 16), 151)
    write_image(labels / 'validation' / 'c.png', (16, 12), 1)
    text = problems('ade20k', ade)
    assert 'a.png holds the value 151; labels go up to 150' in text
    assert 'c.png has 16 x 12 pixels, and its image 12 x 16' in text
    write_image(labels / 'training' / 'a.png')
    assert 'a.png has 3 channels; a label map has one' in problems('ade20k', ade)
    (labels / 'training' / 'b.png').unlink()
    assert f'1 images of {root}/images/training have no label in {labels}/training: b' in problems('ade20k', ade)
    (labels / 'training' / 'a.png').write_bytes(b'no image')
    assert 'a.png' in problems('ade20k', ade)


def test_camvid_has_no_official_counts(tmp_path):
    for split in ('train', 'val'):
        write_image(tmp_path / 'images' / split / '1.png')
        write_image(tmp_path / 'annotations' / split / '1.png', (12, 16), 11)
    report = check_layout('camvid', str(tmp_path))
    assert not report.problems and not report.incomplete
    write_image(tmp_path / 'annotations' / 'val' / '1.png', (12, 16), 12)
    assert 'holds the value 12; labels go up to 11' in problems('camvid', tmp_path)


def test_coco(coco):
    report = check_layout('coco', str(coco))
    assert not report.problems
    assert 'train2017 instances: 1 of 80 categories' in report.facts
    assert 'val2017 sample 1.jpg: 16 x 12 pixels' in report.facts
    (coco / 'train2017' / '1.jpg').unlink()
    write_image(coco / 'val2017' / '1.jpg', (16, 12, 3))
    text = problems('coco', coco)
    assert f'1 images of {coco}/annotations/instances_train2017.json are not in {coco}/train2017: 1.jpg' in text
    assert '1.jpg has 16 x 12 pixels' in text and 'says 12 x 16' in text
    (coco / 'annotations' / 'instances_val2017.json').write_text('[')
    assert 'instances_val2017.json is no COCO annotation file (JSONDecodeError' in problems('coco', coco)


def test_imagenet_by_folders_or_by_a_list(imagenet):
    assert not problems('imagenet', imagenet)
    (imagenet / 'val' / 'n02').rename(imagenet / 'val' / 'n03')
    assert 'only one of' in problems('imagenet', imagenet)
    (imagenet / 'meta').mkdir()
    (imagenet / 'meta' / 'val.txt').write_text('n01/x.JPEG 0\nflat.JPEG 1\n')
    assert 'are not in' in problems('imagenet', imagenet) and 'flat.JPEG' in problems('imagenet', imagenet)
    write_image(imagenet / 'val' / 'flat.JPEG')
    assert not problems('imagenet', imagenet)
    (imagenet / 'train' / 'n02' / 'x.JPEG').unlink()
    assert 'hold no image: n02' in problems('imagenet', imagenet)


def test_cifar10_is_compared_by_its_sums(tmp_path):
    assert 'there is no folder' in problems('cifar10', tmp_path)
    folder = tmp_path / 'cifar-10-batches-py'
    folder.mkdir()
    (folder / 'data_batch_1').write_bytes(pickle.dumps({}))
    text = problems('cifar10', tmp_path)
    assert 'data_batch_1 is damaged' in text and f'there is no file {folder}/data_batch_2' in text


def test_wrong_names_and_folders(tmp_path):
    with pytest.raises(ValueError, match="there is no check for 'nothing'; there are ade20k, coco"):
        check_layout('nothing', str(tmp_path))
    assert 'there is no folder' in problems('coco', tmp_path / 'absent')
    assert problems('ade20k', tmp_path).count('there is no folder') == 4


def test_folders_of_classes(tmp_path):
    for split, classes in dict(train=dict(cat=2, dog=2), test=dict(cat=1, dog=1)).items():
        for name, count in classes.items():
            for i in range(count):
                write_image(tmp_path / split / name / f'{i}.png')
    report = check_layout('folder', str(tmp_path))
    assert report.problems == report.incomplete == []
    assert report.facts[:2] == ['train classes: 2', 'train images: 4']
    (tmp_path / 'train/dog/1.png').unlink()
    write_image(tmp_path / 'test/owl/0.png')
    (tmp_path / 'test/dog/0.png').unlink()
    assert check_layout('folder', str(tmp_path)).problems == [
        f'1 class folders of {tmp_path}/test hold no image: dog',
        f'only one of {tmp_path}/train and {tmp_path}/test has owl; both need the same classes',
        f'1 classes of {tmp_path}/train hold one image: dog; D_tr and D_val need one each',
    ]


def test_the_files_of_a_split(ade):
    files = split_files('ade20k', str(ade))
    assert {split: [path.rpartition('/')[2] for path in paths] for split, paths in files.items()} == {
        'images/training': ['a.jpg', 'b.jpg'],
        'images/validation': ['c.jpg'],
    }
