import math

import pytest
import torch

from mmmlo.models import MaskBinarizationLoss


def scores(batch=3, length=7):
    return torch.rand(batch, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(('weight', 'sigma'), [(1.0, 0.12), (0.3, 0.25)])
def test_is_the_papers_formula(weight, sigma):
    p = scores()
    # On keep weights and with the two constants as released.
    alpha, beta = -1 / (sigma * sigma * 2), 1 / (sigma * math.sqrt(2 * math.pi))
    total = 0.0
    for image in p.tolist():
        for score in image:
            total += math.exp(alpha * ((1 - score) - 0.5) ** 2) / beta
    assert MaskBinarizationLoss(weight, sigma)(p).item() == pytest.approx(weight * total / 21, rel=1e-14)


def test_known_values():
    loss = MaskBinarizationLoss()
    half = torch.full((2, 4), 0.5, dtype=torch.float64)
    assert loss(half).item() == pytest.approx(0.12 * math.sqrt(2 * math.pi))
    assert loss(half).item() == pytest.approx(0.3008, abs=5e-5)
    assert loss(torch.tensor([[0.0, 1.0]])).item() == pytest.approx(5.1e-5, rel=0.01)


def test_pushes_scores_to_the_nearer_end():
    p = torch.tensor([[0.3, 0.7, 0.5]], dtype=torch.float64, requires_grad=True)
    MaskBinarizationLoss()(p).backward()
    low, high, half = p.grad[0].tolist()
    assert low > 0 > high and low == pytest.approx(-high) and half == 0


def test_gradient():
    assert torch.autograd.gradcheck(MaskBinarizationLoss(0.7), scores().requires_grad_())


def test_weight_zero_costs_nothing():
    p = scores().requires_grad_()
    loss = MaskBinarizationLoss(loss_weight=0)(p)
    assert loss == 0 and loss.shape == () and loss.dtype == torch.float64 and not loss.requires_grad


@pytest.mark.parametrize('sigma', [0, -0.1, math.nan])
def test_bad_sigma(sigma):
    with pytest.raises(ValueError, match=rf'model\.binarization\.sigma must be positive, got {sigma}'):
        MaskBinarizationLoss(sigma=sigma)
