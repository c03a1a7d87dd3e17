"""Guidance without labels: the loss written out, what is held, and the hypergradient against double backward."""

import pytest
import torch

HEAD = dict(
    type='mmmlo.ReconstructionTask',
    decoder=dict(
        type='mmmlo.GridMAEDecoder',
        grid=(4, 4),
        patch_size=4,
        embed_dim=48,
        decoder_embed_dim=32,
        decoder_depth=1,
        decoder_num_heads=4,
        mlp_ratio=2,
    ),
    head=dict(type='mmmlo.MaskedPixelHead', norm_pix=True, patch_size=4),
)


@pytest.fixture
def problem(tiny_model, tiny_batch):
    model = tiny_model(downstream=HEAD)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model, {level: tiny_batch(seed) for seed, level in enumerate(('pretrain', 'finetune', 'masking'))}


def masked_loss(model, fixed, images):
    """The decoder on all patches in order, its error averaged over the hidden ones."""
    downstream, (mask, keep, _, restore) = model.downstream, fixed.selection
    pred = downstream.decoder(model.backbone.encode(model.backbone.embed(images)[0], keep), restore)  # B x L x P
    target = downstream.head.construct_target(images)
    return (mask * (pred - target).square().mean(dim=-1)).sum() / mask.sum()


def test_the_loss_is_that_of_random_masks(problem):
    model, batches = problem
    images = batches['masking']['inputs']
    fixed = model.fix_level('finetune', batches['masking'])
    assert fixed.selection.mask.sum(dim=1).tolist() == [12] * 6
    assert not torch.equal(fixed.selection.mask[0], fixed.selection.mask[1])
    losses = model.level_loss('masking', batches['masking'], fixed)
    torch.testing.assert_close(losses['loss'], masked_loss(model, fixed, images))
    torch.manual_seed(3)
    first = model.level_loss('masking', dict(inputs=images, data_samples=None))['loss']
    torch.manual_seed(4)
    assert first != model.level_loss('masking', dict(inputs=images, data_samples=None))['loss']


@pytest.mark.parametrize('paths', [['pretrain'], ['finetune>pretrain'], ['pretrain', 'finetune>pretrain']], ids='+'.join)
def test_the_hypergradient_is_that_of_double_backward(problem, tiny_wrapper, paths, monkeypatch):
    model, batches = problem
    wrapper = tiny_wrapper(model, masking=dict(paths=paths))
    drawn = []
    encode = model.downstream.encode
    monkeypatch.setattr(model.downstream, 'encode', lambda *args: drawn.append(encode(*args)) or drawn[-1])
    found = wrapper.hypergradient(model, 'masking', batches['masking'], batches)
    assert len(drawn) == 1 + ('finetune>pretrain' in paths)  # masks of D_tr are drawn once for all passes

    encoder = [p for name in ('backbone', 'neck') for p in getattr(model, name).parameters() if p.requires_grad]
    own = [p for p in model.downstream.parameters() if p.requires_grad]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        outer = masked_loss(model, drawn[0], batches['masking']['inputs'])
        v = torch.autograd.grad(outer, encoder + own, allow_unused=True)
        v = [torch.zeros_like(p) if g is None else g for g, p in zip(v, encoder + own)]
        vector = v[: len(encoder)] if 'pretrain' in paths else [torch.zeros_like(p) for p in encoder]
        if 'finetune>pretrain' in paths:
            inner = masked_loss(model, drawn[1], batches['finetune']['inputs'])
            inner = torch.autograd.grad(inner, own, create_graph=True)
            product = sum((g * u).sum() for g, u in zip(inner, v[len(encoder) :]))
            across = torch.autograd.grad(product, encoder, allow_unused=True)
            vector = [a if b is None else a - b for a, b in zip(vector, across)]
        lower = model.level_loss('pretrain', batches['pretrain'])['loss']
        lower = torch.autograd.grad(lower, encoder, create_graph=True, allow_unused=True)
        product = sum((g * u).sum() for g, u in zip(lower, vector) if g is not None)
        expected = [-g for g in torch.autograd.grad(product, list(model.masker.parameters()))]
    assert all(g.abs().max() > 0 for g in expected)
    for mine, theirs in zip(found.gradients, expected):
        assert (mine - theirs).norm() < 1e-8 * theirs.norm()


@pytest.mark.parametrize(
    ('part', 'key', 'value', 'right'),
    [
        ('decoder', 'grid', (2, 4), r'\(4, 4\)'),
        ('decoder', 'embed_dim', 32, '48'),
        ('decoder', 'patch_size', 2, '4'),
        ('head', 'patch_size', 2, '4'),
    ],
)
def test_what_does_not_fit_the_backbone_is_named(tiny_model, part, key, value, right):
    with pytest.raises(ValueError, match=f'model.downstream.{part}.{key} is .*set model.downstream.{part}.{key}={right}'):
        tiny_model(downstream={**HEAD, part: {**HEAD[part], key: value}})


def test_images_of_another_size_are_an_error(problem, tiny_batch):
    with pytest.raises(ValueError, match=r'grid of \(4, 5\) patches, but model.downstream.decoder.grid is \(4, 4\)'):
        problem[0].level_loss('finetune', tiny_batch(0, shape=(16, 20)))
