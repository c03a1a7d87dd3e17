import math

import pytest
import torch

from mmmlo.models import MaskDiversityLoss


def scores(batch=4, length=7):
    return torch.rand(batch, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def over_pairs(masks, scale):
    """Sum over pairs of exp(-scale * distance), over the number of pairs, one pair after another."""
    total, pairs = 0.0, 0
    for b in range(len(masks)):
        for c in range(b + 1, len(masks)):
            distance = math.sqrt(sum((x - y) ** 2 for x, y in zip(masks[b], masks[c])))
            total += math.exp(-scale * distance)
            pairs += 1
    return total / pairs


@pytest.mark.parametrize(('batch', 'weight', 'scale'), [(4, 2.0, 0.1), (2, 0.3, 1.5), (30, 1.0, 0.1)])
def test_is_the_mean_over_pairs(batch, weight, scale):
    p = scores(batch)
    expected = weight * over_pairs((1 - p).tolist(), scale)
    assert MaskDiversityLoss(weight, scale)(p).item() == pytest.approx(expected, rel=1e-13)


def test_known_values():
    one_mask = torch.full((5, 16), 0.3, dtype=torch.float64)
    assert MaskDiversityLoss()(one_mask).item() == pytest.approx(2)
    opposite = torch.tensor([[1.0] * 16, [0.0] * 16])
    assert MaskDiversityLoss()(opposite).item() == pytest.approx(2 * math.exp(-0.4))


def test_gradient():
    assert torch.autograd.gradcheck(MaskDiversityLoss(0.7, 0.5), scores().requires_grad_())


# Over 25 rows the distances would come from a matrix product, if PyTorch chose.
@pytest.mark.parametrize('batch', [3, 40])
def test_gradient_is_finite_where_masks_coincide(batch):
    p = scores(1).repeat(batch, 1)
    p[-1] += 0.5  # the last one differs
    p.requires_grad_()
    loss = MaskDiversityLoss(scale=0.1)
    loss(p).backward()
    assert p.grad.isfinite().all()
    # The same mask gets the same gradient, from the one that differs alone: downhill is away from it.
    torch.testing.assert_close(p.grad[:-1], p.grad[:1].expand(batch - 1, -1))
    assert (p.grad[:-1] > 0).all() and (p.grad[-1] < 0).all()
    same = p.detach()[:2].requires_grad_()
    loss(same).backward()
    assert not same.grad.any()


@pytest.mark.parametrize('gap', [1e-3, 1e-5])
def test_gradient_keeps_its_length_between_masks_that_almost_coincide(gap):
    """In single precision, with as many patches and images as in training: a matrix product would lose it."""
    p = scores(1, 196).float().repeat(64, 1)
    p[1, 5] += gap
    p.requires_grad_()
    MaskDiversityLoss(loss_weight=1.0)(p).backward()
    distance = p[1, 5].item() - p[0, 5].item()
    # The 63 others pull at it alike.
    assert p.grad[1, 5].item() == pytest.approx(-63 * 0.1 * math.exp(-0.1 * distance) / (64 * 63 / 2), rel=1e-3)


def test_batch_of_one():
    p = scores(1)
    with pytest.raises(ValueError, match=r'model\.diversity compares.* batch has 1;.*model\.diversity\.loss_weight=0'):
        MaskDiversityLoss()(p)
    assert MaskDiversityLoss(loss_weight=0)(p) == 0


def test_weight_zero_costs_nothing():
    p = scores().requires_grad_()
    loss = MaskDiversityLoss(loss_weight=0)(p)
    assert loss == 0 and loss.shape == () and loss.dtype == torch.float64 and not loss.requires_grad


@pytest.mark.gpu
def test_gradient_and_memory_on_a_gpu():
    p = torch.rand(256, 196, device='cuda', requires_grad=True)
    torch.cuda.reset_peak_memory_stats()
    MaskDiversityLoss()(p).backward()
    twin = p.detach().cpu().double().requires_grad_()
    MaskDiversityLoss()(twin).backward()
    torch.testing.assert_close(p.grad.cpu().double(), twin.grad, rtol=1e-3, atol=1e-8)
    assert torch.cuda.max_memory_allocated() < 200 * 2**20
