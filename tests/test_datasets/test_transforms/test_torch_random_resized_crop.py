"""PyTorch's resize against Pillow's, on the same boxes."""

import cv2
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS

from mmmlo.datasets import TorchRandomResizedCrop


@pytest.fixture(scope='module')
def photos():
    """Images of several sizes with coarse and fine structure; bright and dark spots clip."""
    rng = np.random.default_rng(0)
    images = []
    for height, width in ((120, 160), (90, 64), (40, 200), (64, 64)):
        image = np.full((height, width, 3), 127.0, dtype=np.float32)
        for octave in range(7):
            noise = rng.normal(0, 45 * 0.8**octave, (2**octave + 1, 2**octave + 1, 3)).astype(np.float32)
            image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        images.append(image.clip(0, 255).astype(np.uint8))
    return images


def crop(kind, image, seed, **settings):
    transform = TRANSFORMS.build(dict(type=kind, scale=48, crop_ratio_range=(0.2, 1.0), **settings))
    np.random.seed(seed)
    results = transform(dict(img=image.copy()))
    return results['img'], results['img_shape'], np.random.rand()


@pytest.mark.parametrize('interpolation', ['bicubic', 'bilinear'])
def test_same_boxes_and_nearly_the_same_pixels_as_pillow(interpolation, photos):
    differences = []
    for seed in range(40):
        image = photos[seed % len(photos)]
        ours, shape, drawn = crop('mmmlo.TorchRandomResizedCrop', image, seed, interpolation=interpolation)
        theirs, expected_shape, expected = crop(
            'mmpretrain.RandomResizedCrop', image, seed, interpolation=interpolation, backend='pillow'
        )
        assert (shape, drawn, ours.dtype) == (expected_shape, expected, np.uint8)
        differences.append(np.abs(ours.astype(int) - theirs))
    differences = np.stack(differences)
    # Half a level by rounding, now and then; more only where the filter's first pass clips.
    assert differences.mean() < 0.06
    assert (differences > 1).mean() < 1e-3
    assert differences.max() <= (1 if interpolation == 'bilinear' else 30)


def test_without_clipping_pixels_differ_by_rounding(photos):
    for seed in range(20):
        image = photos[seed % len(photos)] // 2 + 64
        ours = crop('mmmlo.TorchRandomResizedCrop', image, seed)[0].astype(int)
        theirs = crop('mmpretrain.RandomResizedCrop', image, seed, interpolation='bicubic', backend='pillow')[0]
        assert np.abs(ours - theirs).max() <= 2


def test_boxes_of_other_shapes_and_mirrored_and_grey_images(photos):
    transform = TorchRandomResizedCrop(scale=(20, 30))
    grey = np.ascontiguousarray(photos[0][..., 0])
    for image in (photos[0], photos[0][:, ::-1], grey):
        np.random.seed(0)
        results = transform(dict(img=image))
        assert results['img'].shape == results['img_shape'] == (20, 30, *image.shape[2:])
    np.random.seed(0)
    coloured = transform(dict(img=photos[0]))['img']
    assert np.array_equal(results['img'], coloured[..., 0])


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(interpolation='lanczos'), "interpolation must be 'bicubic' or 'bilinear' .*, got 'lanczos'"),
        (dict(backend='cv2'), "backend 'pillow', got 'bicubic' and 'cv2'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        TorchRandomResizedCrop(scale=8, **settings)


def test_other_types_of_images_are_refused(photos):
    with pytest.raises(ValueError, match='needs images in uint8 or float32, got float64'):
        TorchRandomResizedCrop(scale=8)(dict(img=photos[0].astype(np.float64)))
