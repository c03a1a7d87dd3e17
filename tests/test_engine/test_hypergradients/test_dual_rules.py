"""The rules that stand in for PyTorch's, against PyTorch's: tangents by elementary operations in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from mmmlo.engine.hypergradients.dual_rules import DualRules


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def differentiate(function, primals, tangents, rules):
    """Value and tangent; where a tangent is None, its argument is a constant."""
    with forward_ad.dual_level():
        duals = [x if t is None else forward_ad.make_dual(x, t) for x, t in zip(primals, tangents)]
        if rules:
            with DualRules():
                output = function(*duals)
        else:
            output = function(*duals)
        return tuple(forward_ad.unpack_dual(output))


@pytest.mark.parametrize('moving', [(1, 1, 1), (0, 1, 1), (1, 0, 0), (1, 1, 0), (0, 0, 1), (0, 1, 0), (1, 0, 1)], ids=str)
@pytest.mark.parametrize('shape', [(5,), (2, 3, 5)], ids=str)
def test_linear(shape, moving):
    primals = [draw(*shape), draw(4, 5, seed=1), draw(4, seed=2)]
    tangents = [draw(*x.shape, seed=3 + i) if moving[i] else None for i, x in enumerate(primals)]
    expected = differentiate(lambda x, w, b: x @ w.t() + b, primals, tangents, False)
    torch.testing.assert_close(differentiate(F.linear, primals, tangents, True), expected)


def test_linear_without_bias():
    primals, tangents = [draw(2, 5), draw(4, 5, seed=1)], [draw(2, 5, seed=2), draw(4, 5, seed=3)]
    expected = differentiate(lambda x, w: x @ w.t(), primals, tangents, False)
    torch.testing.assert_close(differentiate(F.linear, primals, tangents, True), expected)


def plain_attention(query, key, value):
    return (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(-1) @ value


@pytest.mark.parametrize('moving', [(1, 1, 1), (0, 1, 1), (1, 0, 0)], ids=str)
def test_attention(moving):
    # As layers hand them over: the heads are no contiguous dimension.
    primals = [draw(2, 7, 3, 4, seed=i).transpose(1, 2) for i in range(3)]
    tangents = [draw(2, 3, 7, 4, seed=3 + i) if moving[i] else None for i in range(3)]
    expected = differentiate(plain_attention, primals, tangents, False)
    torch.testing.assert_close(differentiate(F.scaled_dot_product_attention, primals, tangents, True), expected)


@pytest.mark.parametrize(
    'kwargs', [dict(is_causal=True), dict(scale=0.3), dict(attn_mask=torch.ones(7, 7, dtype=torch.float64).tril())], ids=str
)
def test_attention_with_more_than_the_plain_rule_knows(kwargs):
    primals = [draw(2, 3, 7, 4, seed=i) for i in range(3)]
    tangents = [draw(2, 3, 7, 4, seed=3 + i) for i in range(3)]
    _, actual = differentiate(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **kwargs), primals, tangents, True)
    eps = 1e-6
    plus, minus = (
        F.scaled_dot_product_attention(*(x + step * t for x, t in zip(primals, tangents)), **kwargs) for step in (eps, -eps)
    )
    torch.testing.assert_close(actual, (plus - minus) / (2 * eps), rtol=1e-6, atol=1e-8)


def test_low_precision_under_autocast():
    primals = [x.float() for x in (draw(6, 5), draw(4, 5, seed=1), draw(4, seed=2))]
    tangents = [draw(*x.shape, seed=3 + i).float() for i, x in enumerate(primals)]
    expected = differentiate(F.linear, primals, tangents, True)
    with torch.autocast('cpu', torch.bfloat16):
        actual = differentiate(F.linear, primals, tangents, True)
    assert all(x.dtype == torch.bfloat16 for x in actual)
    torch.testing.assert_close([x.float() for x in actual], list(expected), rtol=0.03, atol=0.05)
