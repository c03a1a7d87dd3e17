"""Pictures by the visualizers of the three frameworks."""

import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import VISUALIZERS, DefaultScope
from mmengine.structures import InstanceData, PixelData

from mmmlo.engine.hooks import PredictionPictureHook

CLASSES = dict(classes=('cat', 'dog'), palette=[(255, 0, 0), (0, 255, 0)])


@pytest.fixture
def image_path(tmp_path):
    path = tmp_path / 'one' / 'photo.jpg'
    path.parent.mkdir()
    cv2.imwrite(str(path), np.full((32, 48, 3), 200, np.uint8))
    return str(path)


@pytest.fixture
def draw(tmp_path):
    """Draw samples by the visualizer of a scope; ``draw(scope, visualizer, samples, **options)`` returns the pictures."""

    def run(scope, visualizer, samples, data_batch=None, **options):
        with DefaultScope.overwrite_default_scope(scope):
            visualizer = VISUALIZERS.build(dict(type=visualizer, name=f'{scope}_{id(samples)}'))
        visualizer.dataset_meta = CLASSES
        hook = PredictionPictureHook(str(tmp_path / 'shown'), **options)
        runner = SimpleNamespace(visualizer=visualizer)
        hook.before_test(runner)
        hook.after_test_iter(runner, 0, data_batch, samples)
        return {path.name: cv2.imread(str(path)) for path in (tmp_path / 'shown').iterdir()}

    return run


def segmentation(path):
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(img_path=path))
    labels = torch.zeros(1, 32, 48, dtype=torch.long)
    sample.gt_sem_seg = PixelData(data=labels)
    sample.pred_sem_seg = PixelData(data=labels + 1)
    return sample


def detection(path, score):
    from mmdet.structures import DetDataSample

    sample = DetDataSample(metainfo=dict(img_path=path))
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([[4.0, 4.0, 20.0, 20.0]]), labels=torch.tensor([1]), scores=torch.tensor([score])
    )
    return sample


def test_segmentation_stands_beside_its_truth(draw, image_path):
    pictures = draw('mmseg', 'SegLocalVisualizer', [segmentation(image_path)])
    assert list(pictures) == ['photo.png']
    truth, prediction = np.split(pictures['photo.png'].astype(int), 2, axis=1)
    assert truth.shape == (32, 48, 3)
    # OpenCV's order: the truth is red, the prediction green.
    assert truth[25, 5, 2] > truth[25, 5, 1] and prediction[25, 5, 1] > prediction[25, 5, 2]


def test_boxes_are_drawn_from_a_score_on(draw, image_path):
    plain = cv2.imread(image_path).astype(int)
    for least, change in ((0.3, True), (0.6, False)):
        picture = draw('mmdet', 'DetLocalVisualizer', [detection(image_path, 0.5)], score_thr=least)['photo.png']
        assert picture.shape == (32, 96, 3)  # mmdet leaves the place of the truth also where there is none
        truth, prediction = np.split(picture.astype(int), 2, axis=1)
        assert np.abs(truth - plain).max() < 10
        assert (np.abs(prediction - plain).max() > 50) == change


def test_classes_of_images_without_files(draw):
    from mmpretrain.structures import DataSample

    samples = [DataSample().set_gt_label(0).set_pred_label(1).set_pred_score(torch.tensor([0.2, 0.8])) for _ in range(2)]
    images = torch.full((2, 3, 32, 48), 200, dtype=torch.uint8)
    pictures = draw('mmpretrain', 'UniversalVisualizer', samples, dict(inputs=images))
    assert sorted(pictures) == ['image_0_0.png', 'image_0_1.png']
    assert all(len(np.unique(picture)) > 1 for picture in pictures.values())  # there is text on it


def test_images_of_one_name_and_the_most_that_are_drawn(draw, image_path, tmp_path):
    other = tmp_path / 'other' / 'photo.jpg'
    other.parent.mkdir()
    shutil.copy(image_path, other)
    samples = [segmentation(image_path), segmentation(str(other)), segmentation(image_path)]
    assert sorted(draw('mmseg', 'SegLocalVisualizer', samples, most=2)) == ['photo.png', 'photo_0_1.png']
