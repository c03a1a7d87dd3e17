"""ADIOS's penalty on empty and full masks."""

import math

import pytest
import torch

from mmmlo.models.losses import MaskAreaLoss


def test_the_penalty_is_least_at_a_half_and_symmetric():
    loss = MaskAreaLoss(loss_weight=0.3)
    masks = torch.rand(5, 3, 16, dtype=torch.float64)
    by_hand = sum(1 / math.sin(math.pi * mask.mean().item()) for mask in masks.flatten(0, 1)) / 15
    assert loss(masks).item() == pytest.approx(0.3 * by_hand)
    torch.testing.assert_close(loss(1 - masks), loss(masks))
    half = torch.full((1, 2, 16), 0.5, requires_grad=True)
    assert loss(half).item() == pytest.approx(0.3)
    assert torch.autograd.grad(loss(half), half)[0].abs().max() < 1e-6
    assert loss(torch.full((1, 4, 16), 0.25)).item() == pytest.approx(0.3 * 2**0.5)


@pytest.mark.parametrize('value', [0.0, 1.0])
def test_masks_that_hide_nothing_or_all_stay_finite(value):
    masks = torch.full((2, 3, 16), value, requires_grad=True)
    loss = MaskAreaLoss()(masks)
    assert 1e3 < loss < float('inf')
    assert torch.autograd.grad(loss, masks)[0].isfinite().all()
