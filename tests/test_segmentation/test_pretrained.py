"""Encoders of other pretraining in a segmentor's backbone."""

import os.path as osp

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from mmmlo.launch.config import load_config, set_backbone
from mmmlo.utils.key_report import KeyMismatchError, initialized_from

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
LINEAR, UPERNET = (
    f'configs/segmentation/{name}_ade20k-512x512.py'
    for name in ('linear_vit-base-p16_8xb2-amp-40k', 'upernet_vit-base-p16_8xb2-amp-160k')
)


@pytest.fixture(scope='module')
def mmpretrain_mae(tmp_path_factory):
    """A MAE made of mmpretrain's classes alone, for images of 64 pixels, with random weights."""
    torch.manual_seed(0)
    arch = dict(embed_dims=48, num_layers=4, num_heads=4, feedforward_channels=96)
    cfg = dict(
        type='MAE',
        backbone=dict(type='MAEViT', arch=arch, img_size=64, patch_size=16),
        neck=dict(
            type='MAEPretrainDecoder', num_patches=16, patch_size=16, embed_dim=48, decoder_embed_dim=32, decoder_depth=1,
            decoder_num_heads=4),
        head=dict(type='MAEPretrainHead', patch_size=16, loss=dict(type='PixelReconstructionLoss', criterion='L2')),
    )  # fmt: skip
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg)
        model.init_weights()
    path = str(tmp_path_factory.mktemp('mae') / 'mae.pth')
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=1)), path)
    return path


@pytest.mark.parametrize(('config', 'left'), [(UPERNET, 2), (LINEAR, 0)])
def test_a_mae_of_mmpretrain_alone_loads(mmpretrain_mae, cut_down, config, left):
    cfg = cut_down(load_config(osp.join(ROOT, config)))
    set_backbone(cfg, mmpretrain_mae)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model)
        ((module, _, state, report),) = initialized_from(model)
        model.init_weights()
    print(report)
    # Patch embedding, class token, 12 a block, final norm; the positions of another grid are resized.
    counts = {name: count for name, count in report.check().counts().items() if count}
    expected = dict(matched=2 + 1 + 4 * 12 + (2 - left), resized=1, left_by_design=left)
    assert counts == {name: count for name, count in expected.items() if count}
    assert module is model.backbone
    report.check_values(module, state)
    assert report.resized['pos_embed'] == ((1, 17, 48), (1, 21, 48))
    assert torch.equal(module.pos_embed[:, 0], state['pos_embed'][:, 0])
    assert sorted(report.left_by_design) == ['ln1.bias', 'ln1.weight'][:left]


def test_another_patch_size_is_an_error(tiny_checkpoint, cut_down):
    cfg = cut_down(load_config(osp.join(ROOT, UPERNET)))
    cfg.model.backbone.arch.num_layers = 2
    cfg.model.backbone.out_indices = [1]
    set_backbone(cfg, tiny_checkpoint('patch_4'))
    with DefaultScope.overwrite_default_scope('mmseg'):
        ((*_, report),) = initialized_from(MODELS.build(cfg.model))
    with pytest.raises(KeyMismatchError, match='patch_embed.projection.weight 48x3x4x4 -> 48x3x16x16'):
        report.check()
