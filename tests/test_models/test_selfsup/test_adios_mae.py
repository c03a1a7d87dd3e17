"""ADIOS on patches: both players' losses against the equations."""

import math

import pytest
import torch
from mmengine.optim import build_optim_wrapper

ADIOS = dict(
    type='mmmlo.ADIOSMAE', downstream=None, mask_ratio=0.25,
    masker=dict(type='mmmlo.UNetMasker', patch_size=4, num_masks=3, dims=8, depth=1))
LEVELS = ('pretrain', 'masking')


def parameters_of(model, level):
    return [p for name in model.level_modules[level] for p in getattr(model, name).parameters() if p.requires_grad]


def reference(model, images, masks):
    """sum_k sum_i m_ki l_ki / sum_k sum_i m_ki, mask by mask."""
    tokens, _ = model.backbone.embed(images)
    total, weight = 0.0, 0.0
    for mask in masks.unbind(dim=1):  # B x L
        x = torch.cat([model.backbone.cls_token.expand(len(images), -1, -1), tokens * (1 - mask).unsqueeze(-1)], dim=1)
        for layer in model.backbone.layers:
            x = layer(x)
        x = model.neck.decoder_embed(model.backbone.ln1(x)) + model.neck.decoder_pos_embed
        for layer in model.neck.decoder_blocks:
            x = layer(x)
        patch_loss = model.head.patch_loss(model.neck.decoder_pred(model.neck.ln1(x))[:, 1:], images)
        total, weight = total + (mask * patch_loss).sum(), weight + mask.sum()
    return total / weight


@pytest.mark.parametrize('single', [False, True])
def test_both_levels_are_the_equations_written_out(tiny_model, tiny_batch, single):
    model, batch = tiny_model(**ADIOS, single=single), tiny_batch(1)
    images = batch['inputs']
    with torch.no_grad():
        for parameter in model.masker.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    masks = model.masker.soft_masks(images, None, (4, 4))
    torch.manual_seed(5)
    drawn = torch.randint(3, (6, 1, 1))
    shown = torch.stack([mask[k] for mask, k in zip(masks, drawn)]) if single else masks
    reconstruction = reference(model, images, shown.reshape(6, -1, 16))
    areas = masks.mean(dim=2)
    penalty = 0.1 * sum(1 / math.sin(math.pi * area) for area in areas.flatten().tolist()) / areas.numel()

    torch.manual_seed(5)
    pretrain = model.level_loss('pretrain', batch)['loss']
    torch.testing.assert_close(pretrain, reconstruction)
    assert all(g is None for g in torch.autograd.grad(pretrain, parameters_of(model, 'masking'), allow_unused=True,
                                                      retain_graph=True))
    ours, wanted = parameters_of(model, 'pretrain'), reconstruction
    for actual, expected in zip(
        torch.autograd.grad(pretrain, ours),
        torch.autograd.grad(wanted, ours, allow_unused=True, retain_graph=True),
    ):
        # The reference has no mask token, of which the model takes none.
        torch.testing.assert_close(actual, torch.zeros_like(actual) if expected is None else expected)

    torch.manual_seed(5)
    losses = model.level_loss('masking', batch)
    assert losses['loss_area'].item() == pytest.approx(penalty, rel=1e-12)
    torch.testing.assert_close(losses['loss_reconstruction'], -reconstruction)
    wanted = -reconstruction + 0.1 * (1 / (math.pi * areas).sin()).mean()
    masker = parameters_of(model, 'masking')
    for actual, expected in zip(
        torch.autograd.grad(losses['loss_reconstruction'] + losses['loss_area'], masker), torch.autograd.grad(wanted, masker)
    ):
        torch.testing.assert_close(actual, expected)


def test_the_players_work_against_each_other(tiny_model, tiny_batch):
    """On one batch each lowers its own loss, moving its own modules alone."""
    model, batch = tiny_model(**ADIOS), tiny_batch(0)
    levels = {level: dict(optimizer=dict(type='SGD', lr=0.5)) for level in LEVELS}
    wrapper = build_optim_wrapper(model, dict(constructor='mmmlo.MultiLevelOptimWrapperConstructor', levels=levels))
    steps = []
    for level in LEVELS:
        apply = wrapper.level(level).apply_gradient

        def watched(gradients=None, apply=apply, level=level):
            def value():
                return sum(v.item() for k, v in model.level_loss(level, batch).items() if 'loss' in k)

            before, loss = {name: p.clone() for name, p in model.named_parameters()}, value()
            apply(gradients)
            moved = {n.split('.')[0] for n, p in model.named_parameters() if not torch.equal(p, before[n])}
            steps.append((level, moved, value() < loss))

        wrapper.level(level).apply_gradient = watched
    for _ in range(2):
        wrapper.update_levels(model, dict(pretrain=[batch], masking=[batch]))
    assert steps == 2 * [('pretrain', {'backbone', 'neck'}, True), ('masking', {'masker'}, True)]


def test_a_picture_shows_what_the_drawn_mask_hides(tiny_model, tiny_batch):
    model, batch = tiny_model(**ADIOS), tiny_batch(0)
    images = batch['inputs']
    torch.manual_seed(7)
    filled, masking = model.reconstruct(images)
    assert (masking.selection.mask.sum(dim=1) == 4).all()
    masks = model.masker.soft_masks(images, None, (4, 4))
    assert ((masks - masking.mask_prob[:, None]).abs().amax(dim=2) == 0).any(dim=1).all()
    pred = model.soft_predict(model.backbone.embed(images)[0], masking.mask_prob)
    patches = model.head.patchify(images)
    pred = pred * (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt() + patches.mean(dim=-1, keepdim=True)
    hidden = masking.selection.mask.bool()
    torch.testing.assert_close(model.head.patchify(filled)[hidden], pred.detach()[hidden].float().double())


@pytest.mark.parametrize(
    ('updates', 'message'),
    [
        (dict(masker=dict(type='mmmlo.ConvMasker', patch_size=4)), r'a ConvMasker, which divides no image among masks'),
        (dict(temperature=1.0), r'model\.temperature does nothing in mmmlo\.ADIOSMAE'),
        (dict(extra_losses=dict(u=dict(type='mmmlo.UniformityLoss'))), r'model\.extra_losses does nothing'),
        (dict(masker=dict(ADIOS['masker'], num_masks=1)), r'model\.masker\.num_masks must be at least 2, got 1'),
        (dict(masker=dict(ADIOS['masker'], dims=12)), r'model\.masker\.dims must be a multiple of 8, got 12'),
    ],
)
def test_bad_input(tiny_model, updates, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(**{**ADIOS, **updates})
