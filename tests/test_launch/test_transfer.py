"""Transfer by a tiny config of mmseg, through a real run."""

import os

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

from mmmlo.evaluation.encoder import load_encoder
from mmmlo.launch.config import load_config
from mmmlo.launch.transfer import TRANSFER_TASKS, transfer, transfer_config, transfer_recipe
from mmmlo.utils.key_report import KeyMismatchError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

RECIPE = """
default_scope = 'mmseg'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[1., 2., 3.], std=[4., 5., 6.], bgr_to_rgb=True, size=(16, 32), seg_pad_val=255),
    backbone=dict(
        type='mmpretrain.VisionTransformer', img_size=(16, 32), patch_size=4, out_type='featmap',
        arch=dict(embed_dims={width}, num_layers=2, num_heads=4, feedforward_channels=96)),
    decode_head=dict(
        type='FCNHead', in_channels={width}, channels=8, num_convs=1, num_classes=2, norm_cfg=dict(type='SyncBN')),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
dataset = dict(
    type='BaseSegDataset', data_root={root!r}, data_prefix=dict(img_path='images', seg_map_path='labels'),
    img_suffix='.png', seg_map_suffix='.png', metainfo=dict(classes=('dark', 'light'), palette=[[0, 0, 0], [255, 255, 255]]),
    pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')])
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True), dataset=dataset)
test_dataloader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset)
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=30)
test_cfg = dict(type='TestLoop')
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
auto_scale_lr = dict(base_batch_size=2, enable=False)
log_level = 'WARNING'
visualizer = dict(type='SegLocalVisualizer', name='transfer', vis_backends=[])
"""


@pytest.fixture
def recipe(tmp_path):
    """A file with a recipe for images whose right half is light; ``recipe(width=48)``."""
    (tmp_path / 'images').mkdir()
    (tmp_path / 'labels').mkdir()
    label = np.repeat([[0, 1]], 16, axis=1).repeat(16, axis=0).astype(np.uint8)
    for i in range(3):
        cv2.imwrite(str(tmp_path / 'images' / f'{i}.png'), np.stack([40 + 160 * label] * 3, axis=-1))
        cv2.imwrite(str(tmp_path / 'labels' / f'{i}.png'), label)

    def write(width=48):
        path = tmp_path / f'recipe_{width}.py'
        path.write_text(RECIPE.format(root=str(tmp_path), width=width))
        return load_config(str(path))

    return write


@pytest.fixture
def encoder(tiny_checkpoint):
    return load_encoder(tiny_checkpoint('transferred'))


def test_every_task_has_its_configs():
    for task in TRANSFER_TASKS.values():
        for (width, patch), path in task.recipes.items():
            cfg = load_config(os.path.join(ROOT, 'configs', path))
            assert task.evaluator in str(cfg.test_evaluator)
            backbone = cfg.model.backbone
            arch = backbone.arch if isinstance(backbone.arch, dict) else dict(base=768, large=1024)[backbone.arch]
            assert (arch['embed_dims'] if isinstance(arch, dict) else arch, backbone.patch_size) == (width, patch)


def test_an_encoder_of_another_size_has_no_recipe(encoder):
    with pytest.raises(ValueError, match='width 48 and patch 4, and for coco .* Name one of your own by --coco-config'):
        transfer_recipe(TRANSFER_TASKS['coco'], encoder)


def test_pixels_are_normalized_as_the_encoder_s(encoder, recipe):
    cfg = transfer_config(recipe(), encoder)
    preprocessor = cfg.model.data_preprocessor
    assert preprocessor.mean == [120.0, 110.0, 100.0] and preprocessor.std == [60.0, 61.0, 62.0]
    # CIFAR's images come as red, green, blue, and `to_rgb=False` left them so; mmseg's files are read the other way round.
    assert preprocessor.bgr_to_rgb
    assert cfg.auto_scale_lr.enable


def test_a_run_is_measured_and_kept(encoder, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr('mmmlo.launch.transfer.check_transfer', lambda cfg: None)  # there is no head of 2 in any dataset
    task = TRANSFER_TASKS['camvid']
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        result = transfer(task, encoder, str(tmp_path / 'runs'), recipe(), seeds=[3])
        assert DefaultScope.get_current_instance().scope_name == 'mmpretrain'
        again = transfer(task, encoder, str(tmp_path / 'runs'), recipe(), seeds=[3])
    assert result.main == 'mIoU' and list(result.metrics) == ['mIoU', 'mean accuracy', 'pixel accuracy']
    assert result.metrics['mIoU'].mean > 90  # dark and light can be told apart
    assert result.settings['recipe'] == 'recipe_48.py' and result.settings['length'] == '30 iterations'
    assert result.settings['batch_size'] == 2 and 'lr 0.01,' in result.settings['optimizer']
    assert not result.cached and again.cached
    assert again.metrics == result.metrics


def test_what_does_not_fit_is_an_error(encoder, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr('mmmlo.launch.transfer.check_transfer', lambda cfg: None)
    with pytest.raises(ValueError, match='recipe_48.py has no CocoMetric as test_evaluator, by which coco is measured'):
        transfer(TRANSFER_TASKS['coco'], encoder, str(tmp_path / 'runs'), recipe())
    with pytest.raises(KeyMismatchError, match='of another architecture'):
        transfer(TRANSFER_TASKS['camvid'], encoder, str(tmp_path / 'runs'), recipe(width=32))
