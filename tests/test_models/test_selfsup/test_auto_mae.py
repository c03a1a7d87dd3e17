"""AutoMAE's two levels against their equations."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from mmmlo.models.selfsup.auto_mae import random_rectangles

AUTO = dict(type='mmmlo.AutoMAE', downstream=None, masker=dict(type='mmmlo.PositionMasker', grid=(4, 4)))
LEVELS = ('pretrain', 'discriminator')


def wrapper_of(model):
    levels = {level: dict(optimizer=dict(type='SGD', lr=0.1)) for level in LEVELS}
    return build_optim_wrapper(model, dict(constructor='mmmlo.MultiLevelOptimWrapperConstructor', levels=levels))


def test_the_pretrain_level_is_the_equation_written_out(tiny_model, tiny_batch):
    model, batch = tiny_model(**AUTO), tiny_batch(0)
    model.eval()  # spectral norm moves its vectors in training alone
    with torch.no_grad():
        model.masker.logits.normal_()
        tokens, grid = model.backbone.embed(batch['inputs'])
    torch.manual_seed(3)
    masking = model.draw_masks(batch['inputs'], tokens, grid)
    torch.manual_seed(3)
    gumbel = -torch.empty(6, 16, dtype=torch.float64).exponential_().log()
    soft = (model.masker.logits + gumbel).softmax(dim=1)
    torch.testing.assert_close(masking.soft, soft)
    losses = model.level_loss('pretrain', batch, masking)

    # The factor of the visible tokens: its value is 1, its derivative by m is 1/2.
    factor = torch.ones(6, 16, dtype=torch.float64, requires_grad=True)
    ids_keep, ids_restore = masking.selection.ids_keep, masking.selection.ids_restore
    tokens = model.backbone.embed(batch['inputs'])[0]
    pred = model.neck(model.backbone.encode(tokens * factor.unsqueeze(-1), ids_keep), ids_restore)
    mask = masking.selection.mask
    reconstruction = (model.head.patch_loss(pred, batch['inputs']) * mask).sum() / mask.sum()
    judged = model.discriminator(soft, (4, 4))
    torch.testing.assert_close(losses['loss_reconstruction'], reconstruction)
    torch.testing.assert_close(losses['loss_adversarial'], 0.2 * ((judged - 1) ** 2).mean())
    (of_factor,) = torch.autograd.grad(reconstruction, factor)
    surrogate = (0.5 * of_factor * soft).sum() + 0.2 * ((judged - 1) ** 2).mean()
    (expected,) = torch.autograd.grad(surrogate, model.masker.logits)
    (gradient,) = torch.autograd.grad(sum(losses.values()), model.masker.logits)
    assert gradient.abs().max() > 0
    torch.testing.assert_close(gradient, expected)


def test_the_gate_changes_no_bit(tiny_model, tiny_batch):
    model, batch = tiny_model(**AUTO), tiny_batch(0)
    tokens, grid = model.backbone.embed(batch['inputs'])
    assert torch.equal(model.gate(tokens, model.draw_masks(batch['inputs'], tokens, grid)), tokens)


def test_a_quarter_of_the_patches_is_guided_and_the_rest_drawn(tiny_model, tiny_batch):
    """Two thirds of the others are masked, each as likely."""
    model, batch = tiny_model(**AUTO), tiny_batch(0)
    with torch.no_grad():
        model.masker.logits.copy_(torch.tensor([30.0] * 4 + [-30.0] * 12))
    images = batch['inputs'][:1].expand(6000, -1, -1, -1)
    tokens, grid = model.backbone.embed(images)
    mask = model.draw_masks(images, tokens, grid).selection.mask
    assert (mask.sum(dim=1) == 12).all() and mask[:, :4].all()
    assert ((mask[:, 4:].mean(dim=0) - 2 / 3).abs() < 4 * (2 / 9 / 6000) ** 0.5).all()


def test_the_discriminator_learns_rectangles_from_masks(tiny_model, tiny_batch):
    model, batch = tiny_model(**AUTO, dtype=torch.float32), tiny_batch(0, size=64, dtype=torch.float32)
    with torch.no_grad():
        model.masker.logits.copy_(torch.tensor([4.0, 0.0] * 8))  # stripes
    optimizer = torch.optim.Adam(model.discriminator.parameters(), lr=1e-2)
    for _ in range(60):
        losses = model.level_loss('discriminator', batch)
        optimizer.zero_grad()
        (losses['loss_real'] + losses['loss_fake']).backward()
        optimizer.step()
    assert model.masker.logits.grad is None
    tokens, grid = model.backbone.embed(batch['inputs'])
    soft = model.draw_masks(batch['inputs'], tokens, grid).soft
    of_rectangles, of_masks = (model.discriminator(m, grid).mean(dim=1) for m in (random_rectangles(64, grid), soft))
    assert (of_rectangles > of_masks).float().mean() > 0.9


def test_each_level_moves_its_own_modules_alone(tiny_model, tiny_batch):
    model = tiny_model(**AUTO)
    modules = dict(pretrain=('backbone', 'neck', 'head', 'masker'), discriminator=('discriminator',))
    assert model.level_modules == modules
    wrapper, moved = wrapper_of(model), []
    for level in LEVELS:
        apply = wrapper.level(level).apply_gradient

        def watched(gradients=None, apply=apply, level=level):
            before = {name: value.clone() for name, value in model.named_parameters()}
            apply(gradients)
            names = {n.split('.')[0] for n, value in model.named_parameters() if not torch.equal(value, before[n])}
            moved.append((level, names))

        wrapper.level(level).apply_gradient = watched
    for step in range(2):
        batch = tiny_batch(step)
        wrapper.update_levels(model, dict(pretrain=[batch], discriminator=[batch]))
    assert moved == 2 * [('pretrain', {'backbone', 'neck', 'masker'}), ('discriminator', {'discriminator'})]


@pytest.mark.parametrize('grid', [(14, 14), (8, 8), (4, 6)])
def test_rectangles(grid):
    """Of 40 to 160 of 196 patches, exp(1/2) times as high as their surroundings, everywhere."""
    torch.manual_seed(0)
    rows, columns = grid
    maps = random_rectangles(4000, grid, height=10.0).unflatten(1, grid)
    torch.testing.assert_close(maps.sum(dim=(1, 2)), torch.ones(4000))
    inside = maps > maps.amax(dim=(1, 2), keepdim=True) * torch.tensor(-5.0).exp()
    tall, wide = inside.any(dim=2).sum(dim=1), inside.any(dim=1).sum(dim=1)
    assert torch.equal(tall * wide, inside.sum(dim=(1, 2)))  # one full rectangle each
    least = round(rows * 4 / 14)
    assert tall.min() == least and tall.max() == rows - least
    assert (tall * wide >= torch.minimum(40 / 196 * torch.tensor(rows * columns), tall * columns) - 1e-3).all()
    assert inside.float().mean(dim=0).min() > 0.05


def test_bad_input(tiny_model):
    with pytest.raises(ValueError, match=r'model\.masker is a RandomMasker and has nothing to learn'):
        tiny_model(**dict(AUTO, masker=dict(type='mmmlo.RandomMasker')))
    with pytest.raises(ValueError, match=r'model\.temperature does nothing in mmmlo\.AutoMAE'):
        tiny_model(**AUTO, temperature=1.0)
