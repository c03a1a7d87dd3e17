import math

import pytest
import torch
import torch.nn.functional as F

from mmmlo.models import MaskBinarizationLoss, MaskDiversityLoss, MaskRatioLoss, ViTMasker

HEADS = ('mlp', 'linear', 'token')
GOLDEN_SCORES = [0.3009691, 0.5860927, 0.4503299, 0.4593555, 0.2856407, 0.3153954]
GOLDEN_LOSSES = [0.1570048, 7.3576346, 1.9234669]


def tokens(batch=3, length=6, dims=16):
    return torch.randn(batch, length, dims, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def build(seed=0, noise=0.1, **kwargs):
    """A masker after ``init_weights``, in double precision; ``noise`` moves norms and biases from their ones and zeros."""
    torch.manual_seed(seed)
    masker = ViTMasker(**{'embed_dims': 16, 'grid': (2, 3), 'depth': 2, 'mlp_ratio': 2, **kwargs})
    masker.init_weights()
    masker = masker.double()
    with torch.no_grad():
        for parameter in masker.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return masker


def relative_error(actual, expected):
    difference = sum(((a - b) ** 2).sum() for a, b in zip(actual, expected))
    return (difference / sum((b**2).sum() for b in expected)).sqrt().item()


def by_hand(masker, x, head):
    """Scores of one image, L x C, written out."""

    def norm(x, layer):
        centered = x - x.mean(-1, keepdim=True)
        return centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.weight + layer.bias

    def linear(x, layer):
        return x @ layer.weight.T + layer.bias

    x = torch.cat([masker.cls_token[0], x])
    for layer in masker.layers:
        queries, keys, values = linear(norm(x, layer.ln1), layer.attn.qkv).split(16, dim=-1)
        heads = []
        for start in range(0, 16, 4):  # four heads of four channels
            q, k, v = (part[:, start : start + 4] for part in (queries, keys, values))
            weights = (q @ k.T / math.sqrt(4)).exp()
            heads.append(weights / weights.sum(-1, keepdim=True) @ v)
        x = x + linear(torch.cat(heads, dim=-1), layer.attn.proj)
        x = x + linear(F.gelu(linear(norm(x, layer.ln2), layer.ffn.layers[0][0])), layer.ffn.layers[1])
    x = norm(x, masker.norm)
    if head == 'token':
        logits = linear(x[1:], masker.head)[:, 0]
    elif head == 'linear':
        logits = linear(x[0], masker.head)
    else:
        logits = linear(F.gelu(linear(x[0], masker.head[0])), masker.head[2])
    return 1 / (1 + (-logits).exp())


@pytest.mark.parametrize('head', HEADS)
def test_is_the_papers_network(head):
    masker = build(head=head)
    x = tokens()
    actual = masker(None, x, (2, 3))
    assert actual.shape == (3, 6) and actual.dtype == torch.float64
    torch.testing.assert_close(actual, torch.stack([by_hand(masker, image, head) for image in x]))
    assert actual.min() > 0 and actual.max() < 1 and (actual.std(dim=0) > 1e-3).all()


@pytest.mark.parametrize('head', HEADS)
def test_every_parameter_learns(head):
    masker = build(head=head)
    masker(None, tokens(), (2, 3)).square().sum().backward()
    assert [name for name, parameter in masker.named_parameters() if parameter.grad.abs().max() < 1e-9] == []


def test_golden_values():
    """Initialization, scores and losses of one seed stay what they were."""
    masker = build(seed=3, noise=0)
    scores = masker(None, tokens(), (2, 3))
    torch.testing.assert_close(scores[0], torch.tensor(GOLDEN_SCORES, dtype=torch.float64), rtol=1e-5, atol=0)
    losses = [loss(scores).item() for loss in (MaskBinarizationLoss(), MaskRatioLoss(), MaskDiversityLoss())]
    assert losses == pytest.approx(GOLDEN_LOSSES, rel=1e-5)


def test_sizes_are_the_released():
    """36 M parameters for ViT-B/16 at 224 px; the default head has another hidden layer."""
    with torch.device('meta'):
        maskers = {head: ViTMasker(768, grid=(14, 14), head=head) for head in HEADS}
    counts = {head: sum(p.numel() for p in masker.parameters()) for head, masker in maskers.items()}
    block = 12 * 768**2 + 13 * 768
    assert counts['linear'] == 5 * block + 768 + 2 * 768 + 769 * 196 == 35_592_388
    assert counts['mlp'] == counts['linear'] + 769 * 768
    assert counts['token'] == counts['linear'] - 769 * 195


def test_initialization():
    torch.manual_seed(0)
    masker = ViTMasker(64, grid=(4, 4), depth=2)
    masker.init_weights()
    assert masker.cls_token.std().item() == pytest.approx(0.02, rel=0.3)
    linears = [module for module in masker.modules() if isinstance(module, torch.nn.Linear)]
    assert len(linears) == 2 * 4 + 2
    for module in linears:
        bound = math.sqrt(6 / sum(module.weight.shape))
        assert 0.98 * bound < module.weight.abs().max() <= bound
        assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert module.bias.abs().max() < 1e-5
    before = masker.head[2].weight.clone()
    masker.init_weights()
    assert torch.equal(masker.head[2].weight, before)


def test_a_pretrained_file_has_the_last_word(tmp_path):
    saved = build(seed=5)
    torch.save(dict(state_dict=saved.float().state_dict()), tmp_path / 'masker.pth')
    masker = build(noise=0, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'masker.pth')))
    assert all(torch.equal(a.float(), b) for a, b in zip(masker.state_dict().values(), saved.state_dict().values()))


@pytest.mark.parametrize('grid', [(2, 3), (4, 4), (1, 5)])
def test_head_on_tokens_takes_any_grid(grid):
    masker = build(head='token')
    assert masker.grid is None and masker.embed_dims == 16
    x = tokens(length=grid[0] * grid[1])
    scores = masker(None, x, grid)
    assert scores.shape == (3, grid[0] * grid[1])
    # The blocks know no places but by the tokens: a permutation goes through.
    torch.testing.assert_close(masker(None, x.flip(1), grid), scores.flip(1))


def test_centered_logits_differ_as_before():
    x, grid = tokens(), (2, 3)
    for head in HEADS:
        plain, centered = (build(head=head, centered=c)(None, x, grid).logit() for c in (False, True))
        torch.testing.assert_close(centered, plain - plain.mean(dim=1, keepdim=True))


def test_half_precision_does_not_round_scores_to_one():
    masker = build(head='linear').to(torch.bfloat16)
    with torch.no_grad():
        masker.head.bias.fill_(12)
    scores = masker(None, tokens().to(torch.bfloat16), (2, 3))
    assert scores.dtype == torch.float32 and (scores < 1).all() and (scores > 0.99).all()


def masker_cfg(head):
    return dict(type='mmmlo.ViTMasker', grid=(4, 4), embed_dims=48, depth=2, mlp_ratio=2, head=head)


@pytest.mark.parametrize('head', HEADS)
def test_hypergradient_of_mlo_mae(tiny_model, tiny_batch, tiny_wrapper, head):
    model = tiny_model(masker=masker_cfg(head), downstream=dict(dropout=0.0))
    with torch.no_grad():
        for parameter in model.parameters():  # away from the start, at which the downstream head's weights are almost zero
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    levels = ('pretrain', 'finetune', 'masking')
    batches = {level: tiny_batch(seed) for seed, level in enumerate(levels)}
    results = []
    for estimator in ('ForwardMode', 'DoubleBackward'):
        wrapper = tiny_wrapper(model, masking=dict(hypergradient=dict(type=f'mmmlo.{estimator}')))
        results.append(wrapper.hypergradient(model, 'masking', batches['masking'], batches)[0])
    assert len(results[0]) == len(list(model.masker.parameters()))
    assert max(g.abs().max() for g in results[1]) > 1e-6
    assert relative_error(*results) < 1e-10


def test_levels_of_mlo_mae_move_it(tiny_model, tiny_batch, tiny_wrapper):
    model = tiny_model(masker=masker_cfg('mlp'))
    wrapper = tiny_wrapper(model)
    before = {name: value.clone() for name, value in model.masker.named_parameters()}
    for _ in range(2):  # one cycle
        batches = {name: [tiny_batch(i) for i in range(count)] for name, count in wrapper.due().items()}
        wrapper.update_levels(model, batches)
    assert all(not torch.equal(value, before[name]) for name, value in model.masker.named_parameters())


def test_unknown_head():
    with pytest.raises(ValueError, match=r"model\.masker\.head must be one of 'mlp', 'linear', 'token', got 'conv'"):
        ViTMasker(16, grid=(2, 3), head='conv')


@pytest.mark.parametrize('head', ['mlp', 'linear'])
def test_no_grid(head):
    with pytest.raises(ValueError, match=rf"model\.masker\.grid is missing: head='{head}'.*head='token'"):
        ViTMasker(16, head=head)


def test_heads_do_not_divide_the_width():
    with pytest.raises(ValueError, match=r'model\.masker\.embed_dims 18 is not a multiple of model\.masker\.num_heads 4'):
        ViTMasker(18, grid=(2, 3))


@pytest.mark.parametrize(
    ('key', 'updates'),
    [('grid', dict(grid=(2, 8))), ('embed_dims', dict(embed_dims=64)), ('embed_dims', dict(embed_dims=64, head='token'))],
)
def test_unlike_the_backbone(tiny_model, key, updates):
    with pytest.raises(ValueError, match=rf'model\.masker\.{key} is .*but model\.backbone has'):
        tiny_model(masker=masker_cfg('mlp') | updates)
