"""The losses and levels of MLO-MAE; its hypergradients are tested with the engine."""

import pytest
import torch
import torch.nn.functional as F


def perturbed(model):
    """Away from the symmetric start, at which scores are all close to one half."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model


def patch_losses(model, images, keep, restore):
    """Losses of patches written out: B x L."""
    pred = model.neck(model.backbone.encode(model.backbone.embed(images)[0], keep), restore)
    target = F.unfold(images, 4, stride=4).transpose(1, 2).reshape(len(images), 16, 3, 16).transpose(2, 3).flatten(2)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    return (pred - target).square().mean(-1)


@pytest.mark.parametrize('normalize', [False, True])
@pytest.mark.parametrize('mask_ratio', [0.75, 0.5])
def test_pretrain_loss_is_equation_1(tiny_model, tiny_batch, mask_ratio, normalize):
    model = perturbed(tiny_model(mask_ratio=mask_ratio, normalize_weights=normalize))
    batch = tiny_batch(0)
    images = batch['inputs']
    tokens, grid = model.backbone.embed(images)
    p = model.masker(images, tokens, grid)
    assert p.std() > 0.05
    order = p.argsort(dim=1)
    count = int(16 * (1 - mask_ratio))
    patch_loss = patch_losses(model, images, order[:, :count], order.argsort(1))
    total, masked = 0, 0
    for image in range(6):
        hidden = order[image, count:]
        weight = p[image, hidden] / p[image, hidden].mean() if normalize else p[image, hidden]
        total += (weight * patch_loss[image, hidden]).sum()
        masked += len(hidden)
    actual = model.loss(**batch)['loss']
    torch.testing.assert_close(actual, total / masked)
    torch.testing.assert_close(model.level_loss('pretrain', batch)['loss'], actual)
    torch.testing.assert_close(model.loss(**batch)['loss'], actual)


def test_the_encoder_cannot_move_the_scores(tiny_model, tiny_batch):
    """Through the masker's input it could lower its loss by moving embeddings until the scores fall."""
    model = perturbed(tiny_model())
    batch = tiny_batch(0)
    encoder = [p for p in model.backbone.parameters() if p.requires_grad]
    with torch.no_grad():
        constant = model.fix_level('pretrain', batch)
    assert not constant.weight.requires_grad
    expected = torch.autograd.grad(model.loss(**batch, masking=constant)['loss'], encoder)
    loss = model.loss(**batch)['loss']
    torch.testing.assert_close(torch.autograd.grad(loss, encoder, retain_graph=True), expected)
    # The scores do hang on the masker.
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(loss, list(model.masker.parameters())))

    # What would flow if the input were attached is not small.
    tokens, grid = model.backbone.embed(batch['inputs'])
    weight = model.masker(batch['inputs'], tokens, grid)
    leak = model.loss(**batch, masking=constant._replace(weight=weight))['loss']
    projection = model.backbone.patch_embed.projection.weight
    leaked = torch.autograd.grad(leak, projection)[0]
    held = torch.autograd.grad(model.loss(**batch)['loss'], projection)[0]
    assert (leaked - held).norm() > 1e-2 * held.norm()


@pytest.mark.parametrize(
    ('updates', 'levels'),
    [
        ({}, dict(finetune=('downstream',), masking=('masker',))),
        (dict(downstream=None), {}),
        (dict(masker=dict(type='mmmlo.RandomMasker')), dict(finetune=('downstream',))),
        (dict(masker=dict(type='mmmlo.RandomMasker'), downstream=None), {}),
    ],
)
def test_has_the_levels_that_its_modules_allow(tiny_model, tiny_batch, updates, levels):
    model = tiny_model(**updates)
    expected = dict(pretrain=('backbone', 'neck', 'head'), **levels)
    assert model.level_modules == expected
    assert list(model.level_modules) == list(expected)  # the lowest first
    batch = tiny_batch(0)
    for level in ('pretrain', 'finetune', 'masking', 'teaching'):
        if level in expected:
            assert model.level_loss(level, batch)['loss'].isfinite()
        else:
            with pytest.raises(KeyError, match=f'MLOMAE has no level .*{level}.*pretrain'):
                model.level_loss(level, batch)


def test_level_modules_own_every_trainable_parameter_once(tiny_model):
    model = tiny_model()
    owned = [name for modules in model.level_modules.values() for name in modules]
    assert len(owned) == len(set(owned))
    assert {name.split('.')[0] for name, p in model.named_parameters() if p.requires_grad} == set(owned) - {'head'}


@pytest.mark.parametrize('level', ['finetune', 'masking'])
def test_upper_levels_are_the_cross_entropy_of_unmasked_images(tiny_model, tiny_batch, level):
    model = perturbed(tiny_model(downstream=dict(dropout=0.5)))
    model.eval()
    batch = tiny_batch(0)
    x = model.backbone(batch['inputs'])[-1][:, 0]
    x = F.layer_norm(x, (48,), model.downstream.norm.weight, model.downstream.norm.bias, 1e-6)
    logits = model.downstream.fc(x)
    labels = [int(sample.gt_label) for sample in batch['data_samples']]
    expected = sum(logits[i].logsumexp(0) - logits[i, label] for i, label in enumerate(labels)) / len(labels)
    losses = model.level_loss(level, batch)
    assert list(losses) == ['loss']
    torch.testing.assert_close(losses['loss'], expected)


def test_any_head_of_mmpretrain_serves_downstream(tiny_model, tiny_batch):
    model = tiny_model(
        backbone=dict(out_type='avg_featmap'),
        downstream=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=48),
    )
    batch = tiny_batch(0)
    features = model.backbone(batch['inputs'])[-1]
    assert features.shape == (6, 48)
    labels = torch.cat([sample.gt_label for sample in batch['data_samples']])
    expected = F.cross_entropy(model.downstream.fc(features), labels)
    torch.testing.assert_close(model.level_loss('masking', batch)['loss'], expected)


def test_the_choice_has_a_gradient_only_where_there_is_a_masker(tiny_model):
    with pytest.raises(ValueError, match=r"model\.selection_gradient must be 'none' or 'straight_through', got 'gumbel'"):
        tiny_model(selection_gradient='gumbel')
    with pytest.raises(ValueError, match=r'model\.selection_gradient does nothing without a downstream'):
        tiny_model(selection_gradient='straight_through', downstream=None)


def test_bilevel_joins_the_two_lower_levels(tiny_model, tiny_wrapper, tiny_batch):
    """One lower level with L_pretrain + w L_finetune over encoder, decoder and head; the masker above it as before."""
    three, two = (perturbed(tiny_model(downstream=dict(dropout=0.0), **more)) for more in ({}, dict(bilevel=0.3)))
    two.load_state_dict(three.state_dict())
    assert two.level_modules == dict(pretrain=('backbone', 'neck', 'head', 'downstream'), masking=('masker',))
    assert (three.disjoint_levels, two.disjoint_levels) == ((('finetune', 'masking'),), (('pretrain', 'masking'),))
    batch = tiny_batch(0)
    losses = two.level_loss('pretrain', batch)
    torch.testing.assert_close(losses['loss'], three.level_loss('pretrain', batch)['loss'])
    torch.testing.assert_close(losses['finetune_loss'], 0.3 * three.level_loss('finetune', batch)['loss'])
    with pytest.raises(KeyError, match="no level 'finetune'"):
        two.level_loss('finetune', batch)

    # The supervised loss does not depend on the masker, so one lower level carries what the path `pretrain` alone does.
    batches = {level: tiny_batch(seed) for seed, level in enumerate(('pretrain', 'finetune', 'masking'))}
    only = dict(paths=['pretrain'])
    expected = tiny_wrapper(three, masking=only).hypergradient(three, 'masking', batches['masking'], batches)[0]
    wrapper = tiny_wrapper(two, finetune=None, masking=only)
    actual = wrapper.hypergradient(two, 'masking', batches['masking'], batches)[0]
    torch.testing.assert_close(actual, expected)
    before = two.downstream.fc.weight.clone()
    logged = wrapper.update_levels(two, dict(pretrain=[batch]))
    assert {'pretrain/loss', 'pretrain/finetune_loss'} <= set(logged)
    assert not torch.equal(two.downstream.fc.weight, before)


@pytest.mark.parametrize('updates', [dict(bilevel=0.0), dict(bilevel=1.0, downstream=None)])
def test_bilevel_needs_a_weight_and_a_head(tiny_model, updates):
    with pytest.raises(ValueError, match=r'model\.bilevel.*positive'):
        tiny_model(**updates)


@pytest.mark.parametrize(
    ('updates', 'tokens'),
    [({}, 1), (dict(downstream=dict(token='mean')), 17), (dict(backbone=dict(out_indices=[0, 1])), 17)],
)
def test_the_downstream_module_gets_what_it_reads(tiny_model, tiny_batch, updates, tokens):
    model = perturbed(tiny_model(**updates)).eval()
    batch = tiny_batch(0)
    seen = []
    model.downstream.register_forward_pre_hook(lambda module, args: seen.append(args[0][-1].shape[1]))
    actual = model.level_loss('masking', batch)
    expected = model.downstream.loss(model.extract_feat(batch['inputs']), batch['data_samples'])
    torch.testing.assert_close(actual, expected)
    assert seen == [tokens, 17]
