"""The linear segmentation head, alone and on a frozen backbone."""

import os.path as osp

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmmlo.launch.config import load_config
from mmmlo.models import LinearSegHead
from mmmlo.registry import MODELS

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__)))))


@pytest.fixture(autouse=True)
def default_scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def features(*shapes: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def test_is_a_norm_without_parameters_and_a_linear_layer():
    head = LinearSegHead(in_channels=6, num_classes=5)
    assert {name for name, _ in head.named_parameters()} == {'conv_seg.weight', 'conv_seg.bias'}
    unused, x = features((2, 6, 3, 4), (2, 6, 3, 4))
    logits = head((unused, x))
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
    normalized = (x - mean) / (var + 1e-5).sqrt()
    weight, bias = head.conv_seg.weight[:, :, 0, 0], head.conv_seg.bias
    torch.testing.assert_close(logits, torch.einsum('kc,bchw->bkhw', weight, normalized) + bias[:, None, None])


def test_scale_of_the_features_does_not_matter():
    head = LinearSegHead(in_channels=6, num_classes=5)
    (x,) = features((2, 6, 3, 4))
    torch.testing.assert_close(head((x,)), head((100 * x - 7,)), rtol=1e-3, atol=1e-4)


def test_nothing_of_the_backbone_moves_or_has_a_graph():
    # Two blocks of the CamVid config; images that are not square, and whose last row of patches is not whole.
    cfg = load_config(osp.join(ROOT, 'configs/segmentation/linear_vit-mini-p16_camvid.py'))
    cfg.model.backbone.arch.num_layers = cfg.model.backbone.frozen_stages = 2
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {f'backbone.{name}' for name, _ in model.backbone.named_parameters()}
    embeds = {'cls_token', 'pos_embed', 'patch_embed.projection.weight', 'ln1.weight'}
    assert {f'backbone.{name}' for name in embeds} < frozen

    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = []
    model.backbone.register_forward_hook(lambda module, args, output: seen.append(output[-1]))
    labels = [SegDataSample(gt_sem_seg=PixelData(data=torch.randint(11, (1, 256, 320)))) for _ in range(2)]
    batch = dict(inputs=[torch.randint(256, (3, 256, 320)).float() for _ in range(2)], data_samples=labels)
    for _ in range(3):
        model.train_step(batch, wrapper)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    norm = {'decode_head.norm.running_mean', 'decode_head.norm.running_var', 'decode_head.norm.num_batches_tracked'}
    assert moved == {'decode_head.conv_seg.weight', 'decode_head.conv_seg.bias'} | norm
    assert not any(output.requires_grad for output in seen) and torch.equal(seen[0], seen[2])
    # There is neither dropout nor drop path: training sees the features that evaluation sees.
    images = torch.randn(2, 3, 90, 120)
    assert torch.equal(model.train().backbone(images)[-1], model.eval().backbone(images)[-1])
    assert model.backbone(images)[-1].shape == (2, 192, 6, 8)
