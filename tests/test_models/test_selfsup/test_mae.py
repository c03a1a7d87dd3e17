"""MAE against mmpretrain's, and against the equation where mmpretrain has none."""

import pytest
import torch
from mmengine.optim import OptimWrapper

from mmmlo.models import RandomMasker
from mmmlo.registry import MODELS


def randomize(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter))


@pytest.fixture
def build(tiny_model_cfg):
    def make(dtype=torch.float64, **updates):
        cfg = tiny_model_cfg(masker=None, downstream=None, type='mmmlo.MAE', **updates)
        model = MODELS.build(cfg).to(dtype)
        randomize(model)
        return model

    return make


@pytest.fixture
def theirs(tiny_model_cfg):
    def make(dtype=torch.float64, mask_ratio=0.75):
        cfg = tiny_model_cfg(masker=None, downstream=None, type='mmpretrain.MAE')
        cfg['backbone'].update(type='mmpretrain.MAEViT', mask_ratio=mask_ratio)
        cfg['neck'].update(type='mmpretrain.MAEPretrainDecoder', num_patches=16)
        cfg['neck'].pop('grid')
        cfg['head'].update(
            type='mmpretrain.MAEPretrainHead',
            loss=dict(type='mmpretrain.PixelReconstructionLoss', criterion='L2'),
        )
        model = MODELS.build(cfg).to(dtype)
        randomize(model)
        return model

    return make


@pytest.mark.parametrize('mask_ratio', [0.75, 0.4])
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-5), (torch.float64, 1e-11)], ids=str)
def test_loss_and_gradients_equal_mmpretrains_on_the_same_noise(
    build, theirs, tiny_batch, dtype, tolerance, mask_ratio
):
    ours, theirs = build(dtype, mask_ratio=mask_ratio), theirs(dtype, mask_ratio)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.zero_()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    batch = tiny_batch(0, dtype=dtype)
    losses = []
    for model in (ours, theirs):
        torch.manual_seed(5)
        losses.append(model(**batch, mode='loss'))
        losses[-1]['loss'].backward()
    assert losses[0].keys() == losses[1].keys() == {'loss'}
    torch.testing.assert_close(losses[0]['loss'], losses[1]['loss'], rtol=tolerance / 10, atol=0)

    expected = dict(theirs.named_parameters())
    assert {name for name, p in ours.named_parameters() if p.grad is not None} == {
        name for name, p in expected.items() if p.grad is not None
    }
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=tolerance, atol=tolerance)

    torch.manual_seed(6)
    assert (ours(**batch, mode='loss')['loss'] - losses[0]['loss']).abs() > 1e-4  # other noise, other masks


def test_features_equal_mmpretrains(build, theirs, tiny_batch):
    ours, theirs = build(), theirs()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = tiny_batch(0)['inputs']
    torch.testing.assert_close(ours.extract_feat(images), theirs.extract_feat(images))


def test_loss_on_a_grid_that_is_not_square(build, tiny_batch):
    model = build(backbone=dict(img_size=(8, 24)), neck=dict(grid=(2, 6)))
    batch = tiny_batch(0, shape=(8, 24))
    images = batch['inputs']
    torch.manual_seed(5)
    actual = model.loss(**batch)['loss']
    torch.manual_seed(5)
    shuffle = torch.rand(6, 12).argsort(1)
    tokens, _ = model.backbone.embed(images)
    pred = model.neck(model.backbone.encode(tokens, shuffle[:, :3]), shuffle.argsort(1))
    losses = []
    for image in range(6):
        for patch in shuffle[image, 3:].tolist():
            row, column = divmod(patch, 6)
            pixels = images[image, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].permute(1, 2, 0).flatten()
            pixels = (pixels - pixels.mean()) / (pixels.var() + 1e-6).sqrt()
            losses.append((pred[image, patch] - pixels).square().mean())
    torch.testing.assert_close(actual, sum(losses) / len(losses))


def test_masks_at_random_on_one_level(build):
    model = build()
    assert isinstance(model.masker, RandomMasker)
    assert model.level_modules == {'pretrain': ('backbone', 'neck', 'head')}


def test_trains_under_a_plain_optimizer_wrapper(build, tiny_batch):
    model = build(torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    losses = model.train_step(tiny_batch(0, dtype=torch.float32), wrapper)
    assert losses.keys() == {'loss'}
    same = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    assert same == {'backbone.pos_embed', 'backbone.grid', 'neck.decoder_pos_embed', 'neck.grid'}
