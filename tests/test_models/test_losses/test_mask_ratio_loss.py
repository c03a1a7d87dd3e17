import math

import pytest
import torch

from mmmlo.models import MaskRatioLoss


def scores(batch=3, length=7):
    return torch.rand(batch, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(('ratio', 'weight'), [(0.75, 25.6), (0.4, 0.3)])
def test_is_the_mean_divergence(ratio, weight):
    p = scores()
    total = 0.0
    for image in p.tolist():
        keep = sum(1 - score for score in image) / 7
        total += keep * math.log(keep / (1 - ratio)) + (1 - keep) * math.log((1 - keep) / ratio)
    assert MaskRatioLoss(ratio, weight)(p).item() == pytest.approx(weight * total / 3, rel=1e-13)


def test_defaults_are_the_released_sum_over_256_images():
    p = scores(batch=256)
    keep = 1 - p.mean(dim=1)
    released = 0.1 * (keep * (keep / 0.25).log() + (1 - keep) * ((1 - keep) / 0.75).log()).sum()
    torch.testing.assert_close(MaskRatioLoss()(p), released)


@pytest.mark.parametrize('ratio', [0.75, 0.5, 0.9])
def test_is_zero_at_the_target_alone(ratio):
    loss = MaskRatioLoss(ratio)
    spread = torch.linspace(-0.1, 0.1, 9, dtype=torch.float64).expand(2, -1)  # the mean counts, not the scores
    at_target = (ratio + spread).requires_grad_()
    value = loss(at_target)
    assert abs(value.item()) < 1e-14
    assert torch.autograd.grad(value, at_target)[0].abs().max() < 1e-13
    for shift in (-0.05, 0.05):
        moved = (ratio + shift + spread).requires_grad_()
        value = loss(moved)
        assert value > 0
        # Downhill is towards the target.
        assert (torch.autograd.grad(value, moved)[0] * shift > 0).all()


def test_does_not_depend_on_the_batch_size():
    p = scores(batch=2)
    torch.testing.assert_close(MaskRatioLoss()(p.repeat(5, 1)), MaskRatioLoss()(p))


def test_gradient():
    assert torch.autograd.gradcheck(MaskRatioLoss(0.6, 0.7), scores().requires_grad_())


@pytest.mark.parametrize('value', [0.0, 1.0])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_is_finite_where_all_scores_were_rounded_to_an_end(value, dtype):
    p = torch.full((2, 5), value, dtype=dtype, requires_grad=True)
    loss = MaskRatioLoss(loss_weight=1.0)(p)
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(0.75 if value else 0.25), abs=1e-5)
    assert p.grad.isfinite().all()


def test_weight_zero_costs_nothing():
    p = scores().requires_grad_()
    loss = MaskRatioLoss(loss_weight=0)(p)
    assert loss == 0 and loss.shape == () and loss.dtype == torch.float64 and not loss.requires_grad


@pytest.mark.parametrize('ratio', [0, 1, -0.1, 1.5])
def test_target_outside_the_open_interval(ratio):
    with pytest.raises(ValueError, match=rf'model\.ratio\.mask_ratio must be between 0 and 1, both excluded, got {ratio}'):
        MaskRatioLoss(ratio)
