"""CamVid: classes, and what happens to pixels without a label."""

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from mmmlo.datasets import CamVidDataset
from mmmlo.models import LinearSegHead

VOID = 11
LABELS = np.arange(12, dtype=np.uint8).repeat(4).reshape(6, 8)


@pytest.fixture(autouse=True)
def default_scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


@pytest.fixture
def build(tmp_path):
    """The data set over two images of 8 x 6 pixels that show every class and void."""
    rng = np.random.default_rng(0)
    for folder in ('images/train', 'annotations/train'):
        (tmp_path / folder).mkdir(parents=True)
    for i in range(2):
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(tmp_path / f'images/train/{i}.jpg')
        Image.fromarray(LABELS).save(tmp_path / f'annotations/train/{i}.png')

    def build(**kwargs) -> CamVidDataset:
        return DATASETS.build(
            dict(
                type='mmmlo.CamVidDataset',
                data_root=str(tmp_path),
                data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
                pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')],
                **kwargs,
            )
        )

    return build


def loaded(dataset: CamVidDataset, i: int = 0) -> np.ndarray:
    return dataset[i]['data_samples'].gt_sem_seg.data[0].numpy()


def test_has_segnet_s_classes_in_their_order(build):
    dataset = build()
    assert len(dataset) == 2 and len(dataset.metainfo['palette']) == 11
    assert dataset.metainfo['classes'] == (
        'sky', 'building', 'pole', 'road', 'sidewalk', 'tree', 'sign symbol', 'fence', 'car', 'pedestrian', 'bicyclist'
    )  # fmt: skip
    assert len({tuple(colour) for colour in dataset.metainfo['palette']}) == 11


def test_void_becomes_what_mmseg_ignores(build):
    np.testing.assert_array_equal(loaded(build()), np.where(LABELS == VOID, 255, LABELS))


def test_classes_can_be_chosen(build):
    dataset = build(metainfo=dict(classes=('car', 'road')))
    expected = np.full_like(LABELS, 255)
    expected[LABELS == 8], expected[LABELS == 3] = 0, 1
    np.testing.assert_array_equal(loaded(dataset), expected)
    assert dataset.metainfo['palette'] == [CamVidDataset.METAINFO['palette'][3], CamVidDataset.METAINFO['palette'][8]] or (
        dataset.metainfo['palette'] == [CamVidDataset.METAINFO['palette'][8], CamVidDataset.METAINFO['palette'][3]]
    )


def test_the_metric_ignores_void(build):
    dataset = build()
    evaluator = Evaluator(dict(type='IoUMetric', iou_metrics=['mIoU']))
    evaluator.dataset_meta = dataset.metainfo
    for i in range(2):
        truth = dataset[i]['data_samples']
        predicted = truth.gt_sem_seg.data.clone()
        predicted[predicted == 255] = i  # anything will do there
        truth.pred_sem_seg = PixelData(data=predicted)
        evaluator.process([truth])
    metrics = evaluator.evaluate(2)
    assert metrics['mIoU'] == metrics['aAcc'] == 100


def test_the_loss_ignores_void(build):
    truth = build()[0]['data_samples']
    head = LinearSegHead(in_channels=4, num_classes=11)
    logits = torch.zeros(1, 11, 6, 8)
    changed = logits.clone()
    changed[0, 5][torch.from_numpy(LABELS == VOID)] = 9.0
    sample = SegDataSample(gt_sem_seg=truth.gt_sem_seg)
    losses = [head.loss_by_feat(x, [sample])['loss_ce'] for x in (logits, changed)]
    assert torch.equal(*losses) and losses[0] > 0
    changed[0, 5, 0, 0] = 9.0
    assert head.loss_by_feat(changed, [sample])['loss_ce'] != losses[0]
