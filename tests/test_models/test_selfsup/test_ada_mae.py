"""AdaMAE's draws and its policy gradient."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper

ADA = dict(type='mmmlo.AdaMAE', downstream=None, masker=dict(type='mmmlo.PositionMasker', grid=(4, 4)))


def test_the_gradient_is_the_policy_gradient_written_out(tiny_model, tiny_batch):
    """p being the softmax of logits of being visible: -(w / M) sum over masked i of l_i (e_i - p), a mean over images."""
    model, batch = tiny_model(**ADA), tiny_batch(0)
    with torch.no_grad():
        model.masker.logits.normal_()
    masking = model.fix_level('pretrain', batch)
    losses = model.level_loss('pretrain', batch, masking)
    autoencoder = [p for module in (model.backbone, model.neck) for p in module.parameters() if p.requires_grad]
    gradient, *others = torch.autograd.grad(
        losses['loss_sampling'], [model.masker.logits, *autoencoder], allow_unused=True)
    assert all(other is None for other in others)
    tokens, _ = model.backbone.embed(batch['inputs'])
    pred = model.neck(model.backbone.encode(tokens, masking.selection.ids_keep), masking.selection.ids_restore)
    patch_loss, mask = model.head.patch_loss(pred, batch['inputs']).detach(), masking.selection.mask  # B x L
    p = (-model.masker.logits).softmax(dim=0)
    by_hand = torch.zeros(16, dtype=torch.float64)
    for image in range(len(mask)):
        for i in range(16):
            if mask[image, i]:
                one_hot = torch.eye(16, dtype=torch.float64)[i]
                by_hand -= 1e-4 / 12 / len(mask) * patch_loss[image, i] * (one_hot - p.detach())
    torch.testing.assert_close(gradient, -by_hand, rtol=1e-9, atol=0)  # the masker's logits are those of being masked
    torch.testing.assert_close(losses['loss_reconstruction'], (patch_loss * mask).sum() / mask.sum())
    reconstruction = torch.autograd.grad(losses['loss_reconstruction'], [model.masker.logits], allow_unused=True)
    assert reconstruction == (None,)


def test_visible_patches_are_drawn_by_their_odds_without_replacement(tiny_model, tiny_batch):
    model, batch = tiny_model(dtype=torch.float32, **ADA, mask_ratio=0.875), tiny_batch(0, size=2, dtype=torch.float32)
    with torch.no_grad():
        model.masker.logits.copy_(torch.linspace(-2, 2, 16))
    images = batch['inputs'][:1].expand(20_000, -1, -1, -1)
    tokens, grid = model.backbone.embed(images)
    selection = model.draw_masks(images, tokens, grid).selection
    assert (selection.mask.sum(dim=1) == 14).all()
    p = (-model.masker.logits).softmax(dim=0).detach()
    ratio = p / (1 - p)
    visible = p * (1 + ratio.sum() - ratio)  # drawn first, or second after another one
    found = 1 - selection.mask.mean(dim=0)
    assert ((found - visible).abs() < 4 * (visible * (1 - visible) / 20_000).sqrt()).all()


def test_one_optimizer_moves_all_and_hard_patches_become_visible(tiny_model, tiny_batch):
    model = tiny_model(**ADA, sampling_weight=1.0)
    assert model.level_modules == dict(pretrain=('backbone', 'neck', 'head', 'masker'))
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=1.0)))
    # Patch 5 alone has anything to reconstruct.
    batch = tiny_batch(1)
    batch['inputs'] *= 1e-6
    batch['inputs'][:, :, 4:8, 4:8] *= 1e6
    model.head.norm_pix = False
    model.data_preprocessor.forward = lambda data, training: data
    before = model.masker.logits.detach().clone()
    for _ in range(20):
        model.train_step(batch, wrapper)
    risen = before - model.masker.logits.detach()
    assert risen.argmax() == 5 and risen[5] > 0


def test_a_masker_that_does_not_learn_is_a_control(tiny_model, tiny_batch):
    model = tiny_model(**dict(ADA, masker=dict(type='mmmlo.FrozenMasker', masker=ADA['masker'])))
    assert model.level_modules == dict(pretrain=('backbone', 'neck', 'head'))
    assert list(model.level_loss('pretrain', tiny_batch(0))) == ['loss']


def test_sure_scores_stay_finite(tiny_model, tiny_batch):
    model, batch = tiny_model(dtype=torch.float32, **ADA), tiny_batch(0, dtype=torch.float32)
    with torch.no_grad():
        model.masker.logits.copy_(torch.tensor([60.0, -60.0] * 8))
    losses = model.level_loss('pretrain', batch)
    assert all(value.isfinite() for value in losses.values())
    assert torch.autograd.grad(losses['loss_sampling'], model.masker.logits)[0].isfinite().all()


def test_a_temperature_is_refused(tiny_model):
    with pytest.raises(ValueError, match=r'model\.temperature does nothing in mmmlo\.AdaMAE'):
        tiny_model(**ADA, temperature=1.0)
