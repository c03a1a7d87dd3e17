"""The hypergradients of MLO-MAE against plain double backward on the paper's equations.

The reference shares nothing with the engine and the algorithm's losses: it calls the backbone, the decoder, the masker and
the head's linear layer, and writes equations (1) to (3) out in ``torch.autograd.grad(create_graph=True)``.
"""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

PATHS = [['pretrain'], ['finetune>pretrain'], ['pretrain', 'finetune>pretrain']]


def labels_of(batch):
    return torch.cat([sample.gt_label for sample in batch['data_samples']])


def cross_entropy(model, batch):
    tokens = model.backbone(batch['inputs'])[-1]
    head = model.downstream
    logits = F.linear(head.norm(tokens[:, 0]), head.fc.weight, head.fc.bias)
    return -logits.log_softmax(dim=1).gather(1, labels_of(batch)[:, None]).mean()


def equation_1(model, images, mask_ratio=0.75):
    """Sum over masked patches of p times the mean squared error of normalized pixels, over the number of masked patches."""
    tokens, grid = model.backbone.embed(images)
    p = model.masker(images, tokens.detach(), grid)
    batch, length = p.shape
    ids = p.detach().argsort(dim=1)
    keep = ids[:, : int(length * (1 - mask_ratio))]
    mask = torch.ones_like(p).scatter(1, keep, 0.0)
    if model.selection_gradient == 'straight_through':
        position, gates = model.backbone.pos_embed[:, 1:], 1 - p + p.detach()
        tokens = position + gates[..., None] * (tokens - position)
    latent = model.backbone.encode(tokens, keep)
    pred = model.neck(latent, ids.argsort(dim=1))
    size = model.head.patch_size
    target = F.unfold(images, size, stride=size).transpose(1, 2)  # channel slowest
    target = target.reshape(batch, length, 3, size * size).transpose(2, 3).reshape(batch, length, -1)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    return (mask * p * ((pred - target) ** 2).mean(-1)).sum() / mask.sum()


def dot(a, b):
    return sum((x * y).sum() for x, y in zip(a, b))


def reference(model, batches, paths):
    encoder = [p for n in ('backbone', 'neck') for p in getattr(model, n).parameters() if p.requires_grad]
    head, masker = list(model.downstream.parameters()), list(model.masker.parameters())
    with sdpa_kernel(SDPBackend.MATH):
        outer = cross_entropy(model, batches['masking'])
        v = torch.autograd.grad(outer, encoder + head, allow_unused=True)
        v = [torch.zeros_like(p) if g is None else g for g, p in zip(v, encoder + head)]
        v_encoder, v_head = v[: len(encoder)], v[len(encoder) :]
        total = [torch.zeros_like(p) for p in encoder]
        if 'pretrain' in paths:
            total = [a + b for a, b in zip(total, v_encoder)]
        if 'finetune>pretrain' in paths:
            inner = torch.autograd.grad(cross_entropy(model, batches['finetune']), head, create_graph=True)
            w = torch.autograd.grad(dot(inner, v_head), encoder, allow_unused=True)
            total = [a if b is None else a - b for a, b in zip(total, w)]
        loss = equation_1(model, batches['pretrain']['inputs'])
        lower = torch.autograd.grad(loss, encoder, create_graph=True, allow_unused=True)
        product = sum((g * t).sum() for g, t in zip(lower, total) if g is not None)
        return [-g for g in torch.autograd.grad(product, masker)]


def relative_error(actual, expected):
    difference = sum(((a - b) ** 2).sum() for a, b in zip(actual, expected))
    return (difference / sum((b**2).sum() for b in expected)).sqrt().item()


@pytest.fixture
def problem(tiny_model, tiny_batch):
    # No dropout: the reference would draw its own.
    model = tiny_model(downstream=dict(dropout=0.0))
    with torch.no_grad():
        # Away from the symmetric start, at which the head's weights are almost zero.
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model, {level: tiny_batch(seed) for seed, level in enumerate(('pretrain', 'finetune', 'masking'))}


@pytest.mark.parametrize('paths', PATHS, ids='+'.join)
@pytest.mark.parametrize(('estimator', 'tolerance'), [('ForwardMode', 1e-8), ('FiniteDifference', 1e-4)])
def test_equals_double_backward(problem, tiny_wrapper, estimator, tolerance, paths):
    model, batches = problem
    wrapper = tiny_wrapper(model, masking=dict(paths=paths, hypergradient=dict(type=f'mmmlo.{estimator}')))
    actual, losses, _ = wrapper.hypergradient(model, 'masking', batches['masking'], batches)
    expected = reference(model, batches, paths)
    assert all(g.abs().max() > 0 for g in expected)
    assert relative_error(actual, expected) < tolerance
    torch.testing.assert_close(losses['loss'], cross_entropy(model, batches['masking']))


@pytest.mark.parametrize(('estimator', 'tolerance'), [('ForwardMode', 1e-8), ('FiniteDifference', 1e-4)])
def test_a_differentiated_choice_equals_double_backward(problem, tiny_wrapper, estimator, tolerance):
    model, batches = problem
    wrapper = tiny_wrapper(model, masking=dict(hypergradient=dict(type=f'mmmlo.{estimator}')))
    without, loss = reference(model, batches, PATHS[-1]), model.level_loss('pretrain', batches['pretrain'])['loss']
    model.selection_gradient = 'straight_through'
    actual, _, _ = wrapper.hypergradient(model, 'masking', batches['masking'], batches)
    expected = reference(model, batches, PATHS[-1])
    assert relative_error(actual, expected) < tolerance
    assert relative_error(expected, without) > 0.1
    assert torch.equal(model.level_loss('pretrain', batches['pretrain'])['loss'], loss)


@pytest.mark.parametrize('estimator', ['ForwardMode', 'FiniteDifference'])
def test_leaves_parameters_alone(problem, tiny_wrapper, estimator):
    model, batches = problem
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wrapper = tiny_wrapper(model, masking=dict(hypergradient=dict(type=f'mmmlo.{estimator}')))
    wrapper.hypergradient(model, 'masking', batches['masking'], batches)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {n for n, _ in model.named_parameters()} - {'backbone.pos_embed', 'neck.decoder_pos_embed'}


def test_passes_share_masks_and_dropout(tiny_model, tiny_wrapper, tiny_batch):
    """With dropout, drop path and Gumbel noise on, the estimators still agree: all passes see the same draws."""
    model = tiny_model(
        temperature=1.0,
        backbone=dict(drop_rate=0.1, drop_path_rate=0.2),
        downstream=dict(dropout=0.3),
    )
    model.train()
    batches = {level: tiny_batch(seed) for seed, level in enumerate(('pretrain', 'finetune', 'masking'))}
    results = []
    for estimator in ('ForwardMode', 'FiniteDifference'):
        wrapper = tiny_wrapper(model, masking=dict(hypergradient=dict(type=f'mmmlo.{estimator}')))
        torch.manual_seed(3)
        results.append(wrapper.hypergradient(model, 'masking', batches['masking'], batches)[0])
    assert relative_error(results[1], results[0]) < 1e-3
    torch.manual_seed(4)
    other = wrapper.hypergradient(model, 'masking', batches['masking'], batches)[0]
    assert relative_error(other, results[1]) > 1e-2


def test_normalized_weights_ignore_a_common_scale(tiny_model, tiny_batch):
    model = tiny_model(normalize_weights=True)
    batch = tiny_batch(0)
    masking = model.fix_level('pretrain', batch)
    mean = (masking.weight * masking.selection.mask).sum(1) / masking.selection.mask.sum(1)
    torch.testing.assert_close(mean, torch.ones_like(mean))
    loss = model.loss(**batch, masking=masking)['loss']
    gradient = torch.autograd.grad(loss, masking.mask_prob)[0]
    # Euler: the loss is homogeneous of degree 0 in each image's scores.
    torch.testing.assert_close((gradient * masking.mask_prob).sum(1), torch.zeros_like(mean), atol=1e-12, rtol=0)


@pytest.mark.parametrize(('estimator', 'tolerance'), [('ForwardMode', 0.05), ('FiniteDifference', 0.1)])
def test_bfloat16_autocast_does_not_drown_the_perturbation(tiny_model, tiny_wrapper, tiny_batch, estimator, tolerance):
    """Autocast would round the parameters that finite differences perturb by 1e-3 to three decimal digits."""
    model = tiny_model(dtype=torch.float32, downstream=dict(dropout=0.0))
    with torch.no_grad():
        model.downstream.fc.weight.normal_(std=0.3)
    levels = ('pretrain', 'finetune', 'masking')
    batches = {level: tiny_batch(seed, dtype=torch.float32) for seed, level in enumerate(levels)}
    exact = tiny_wrapper(model).hypergradient(model, 'masking', batches['masking'], batches)[0]
    kind = dict(type='mmmlo.BFloat16OptimWrapper')
    masking = dict(kind, hypergradient=dict(type=f'mmmlo.{estimator}'))
    wrapper = tiny_wrapper(model, pretrain=kind, finetune=kind, masking=masking)
    rounded = wrapper.hypergradient(model, 'masking', batches['masking'], batches)[0]
    assert relative_error(rounded, exact) < tolerance
