import numpy as np
import pytest
import torch
from mmengine.registry import FUNCTIONS
from mmpretrain.models.utils import SelfSupDataPreprocessor
from sklearn.datasets import load_digits

from mmmlo.datasets import Digits
from mmmlo.registry import DATASETS


def test_splits_hold_every_scan_once():
    train, test = Digits(split='train'), Digits(split='test')
    assert (len(train), len(test)) == (1438, 359)
    sources = [data.get_data_info(i)['source'] for data in (train, test) for i in range(len(data))]
    assert sorted(sources) == sorted(f'Digits#{i}' for i in range(1797))
    for data in (train, test):
        counts = np.bincount(data.get_gt_labels(), minlength=10)
        assert counts.min() > 0.9 * counts.mean()


def test_samples_look_like_those_of_cifar():
    dataset = DATASETS.build(dict(type='mmmlo.Digits', split='test', size=40))
    assert dataset.metainfo['classes'] == tuple('0123456789')
    info = dataset[5]
    assert info['img'].shape == (40, 40, 3)
    assert info['img'].dtype == np.uint8
    assert isinstance(info['gt_label'], int)


def test_images_are_the_scans():
    scans, labels = load_digits(return_X_y=True)
    dataset = Digits(split='test', size=8)  # the size of the scans: nothing is resized
    for i in (0, 100, 358):
        info = dataset.get_data_info(i)
        scan = int(info['source'].split('#')[1])
        for channel in range(3):
            np.testing.assert_allclose(info['img'][..., channel], scans[scan].reshape(8, 8) * 255 / 16, atol=0.5)
        assert info['gt_label'] == labels[scan]


@pytest.mark.parametrize('wrong', [dict(split='val'), dict(size=0), dict(size=32.0)])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=f'`{next(iter(wrong))}` of Digits'):
        Digits(**wrong)


def test_pipeline_of_mmpretrain_collates_and_preprocesses():
    pipeline = [
        dict(type='RandomResizedCrop', scale=24, crop_ratio_range=(0.5, 1.0), interpolation='bicubic'),
        dict(type='RandomCrop', crop_size=24, padding=4),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackInputs'),
    ]
    dataset = Digits(pipeline=pipeline)
    batch = FUNCTIONS.get('default_collate')([dataset[i] for i in range(4)])
    assert batch['inputs'].shape == (4, 3, 24, 24)
    out = SelfSupDataPreprocessor(mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True)(batch, True)
    assert out['inputs'].dtype == torch.float32
    assert out['inputs'].abs().max() <= 1
    labels = [int(sample.gt_label) for sample in out['data_samples']]
    assert labels == dataset.get_gt_labels()[:4].tolist()
