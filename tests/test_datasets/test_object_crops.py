"""Crops around objects, of two small scenes whose objects are known."""

import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image

from mmmlo.datasets import SampleIndex, SeededDataset

CAR, PEDESTRIAN = 8, 9
CAR_BOX, PEDESTRIAN_BOX = (20, 30, 12, 10), (70, 8, 8, 14)  # left, top, width, height


@pytest.fixture
def build(tmp_path):
    """The data set over two scenes of 96 x 80 pixels: a car and a pedestrian in each, and a car that is too small."""
    for folder in ('images/train', 'annotations/train'):
        (tmp_path / folder).mkdir(parents=True)
    for i in range(2):
        image, labels = np.full((80, 96, 3), 40, np.uint8), np.full((80, 96), 3, np.uint8)
        for label, (left, top, width, height) in ((CAR, CAR_BOX), (PEDESTRIAN, PEDESTRIAN_BOX), (CAR, (60, 60, 4, 4))):
            image[top : top + height, left : left + width] = 250
            labels[top : top + height, left : left + width] = label
        Image.fromarray(image).save(tmp_path / f'images/train/{i}.png')
        Image.fromarray(labels).save(tmp_path / f'annotations/train/{i}.png')

    def build(**kwargs):
        settings = dict(
            data_root=str(tmp_path),
            data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
            scenes=dict(type='mmmlo.CamVidDataset', img_suffix='.png'),
            classes=('car', 'pedestrian'),
            size=32,
            pipeline=[],
        )
        return DATASETS.build(dict(type='mmmlo.ObjectCrops', **settings | kwargs))

    return build


def same(first, second):
    return all(np.array_equal(first[key], second[key]) for key in ('img', 'worth', 'gt_label'))


def test_crops_hold_the_whole_object_and_show_where_it_is(build):
    data = build(copies=8)
    assert len(data) == 32 and [data.get_data_info(i)['gt_label'] for i in range(4)] == [0, 1, 0, 1]
    for sample in map(data.__getitem__, range(len(data))):
        assert sample['img'].shape == (32, 32, 3) and sample['worth'].shape == (32, 32)
        # A crop has 3 to 5 times the object's longer side, or the side of the scene.
        _, _, width, height = (CAR_BOX, PEDESTRIAN_BOX)[sample['gt_label']]
        share = width * height / max(width, height) ** 2
        assert share / 5.1**2 < sample['worth'].mean() < share / 2.9**2
        assert (sample['img'][sample['worth'] == 1] > 200).all() and sample['worth'].max() > 0.9


def test_training_crops_follow_the_seed_of_the_sample_and_others_are_fixed(build):
    data, fixed = SeededDataset(build()), build(fresh=False, copies=2)
    assert same(data[SampleIndex(1, 7)], data[SampleIndex(1, 7)])
    assert not same(data[SampleIndex(1, 7)], data[SampleIndex(1, 8)])
    assert same(fixed[1], fixed[1]) and not same(fixed[1], fixed[1 + 4])


def test_wrong_classes_and_sizes_are_named(build):
    with pytest.raises(ValueError, match=r"classes of ObjectCrops: \['lorry'\] are none of CamVidDataset, which has sky"):
        build(classes=('car', 'lorry'))
    with pytest.raises(ValueError, match='min_side, 20, '):
        build(min_side=20)
