from itertools import permutations

import pytest
import torch

from mmmlo.models.selection import select_patches


def scores(batch=5, length=16, dtype=torch.float64):
    return torch.rand(batch, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize('temperature', [0.0, 1.0])
@pytest.mark.parametrize(('length', 'ratio'), [(16, 0.75), (16, 0.5), (7, 0.3), (196, 0.75), (2, 0.5), (16, 0.9)])
def test_counts_and_indices(length, ratio, temperature):
    selection = select_patches(scores(length=length), ratio, temperature)
    visible = int(length * (1 - ratio))
    assert selection.mask.dtype == torch.float64
    assert selection.mask.unique().tolist() == [0, 1]
    assert (selection.mask.sum(1) == length - visible).all()
    assert selection.ids_keep.shape == (5, visible)
    assert selection.ids_masked.shape == (5, length - visible)
    for mask, keep, masked, restore in zip(*selection):
        assert set(keep.tolist()) == set((mask == 0).nonzero().flatten().tolist())
        shuffle = restore.argsort()
        assert torch.equal(shuffle[:visible], keep)
        assert torch.equal(shuffle[visible:], masked)
        assert sorted(shuffle.tolist()) == list(range(length))
        # ids_restore undoes [visible, masked].
        assert torch.equal(torch.arange(length)[shuffle][restore], torch.arange(length))


def test_masks_the_largest_scores():
    x = scores()
    mask = select_patches(x, 0.75).mask.bool()
    assert all(image[m].min() > image[~m].max() for image, m in zip(x, mask))
    selection = select_patches(torch.tensor([[0.9, 0.1, 0.2, 0.8]]), 0.5)
    assert selection.mask.tolist() == [[1, 0, 0, 1]]
    assert selection.ids_keep.tolist() == [[1, 2]]


def test_no_temperature_draws_nothing():
    torch.manual_seed(0)
    first = select_patches(scores(), 0.75, temperature=0.0)
    state = torch.get_rng_state()
    second = select_patches(scores(), 0.75, temperature=0.0)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first, second))


def test_carries_no_gradient():
    x = scores().requires_grad_()
    assert not any(tensor.requires_grad for temperature in (0, 1) for tensor in select_patches(x, 0.75, temperature))


@pytest.mark.parametrize('temperature', [0.5, 1.0, 2.0])
def test_noise_draws_without_replacement_in_proportion_to_the_scores(temperature):
    """Gumbel top-k: the masked set has the probabilities of drawing one patch after another."""
    torch.manual_seed(0)
    p = torch.tensor([0.9, 0.45, 0.3, 0.05], dtype=torch.float64)
    count = 40000
    mask = select_patches(p.expand(count, -1), 0.5, temperature).mask
    share = p ** (1 / temperature)
    share = (share / share.sum()).tolist()
    for pair in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]:
        expected = sum(share[i] * share[j] / (1 - share[i]) for i, j in permutations(pair))
        actual = mask[:, pair].all(dim=1).double().mean().item()
        assert abs(actual - expected) < 4 * (expected * (1 - expected) / count) ** 0.5 + 1e-6


def test_scores_of_zero_are_finite_under_noise():
    selection = select_patches(torch.tensor([[0.0, 1.0, 0.0, 1.0]]), 0.5, temperature=1.0)
    assert selection.mask.tolist() == [[0, 1, 0, 1]]


@pytest.mark.parametrize('ratio', [0, 1, -0.1, 1.5])
def test_ratio_outside_the_open_interval(ratio):
    with pytest.raises(ValueError, match=rf'model\.mask_ratio must be between 0 and 1, both excluded, got {ratio}'):
        select_patches(scores(), ratio)


def test_ratio_that_leaves_no_visible_or_no_masked_patch():
    with pytest.raises(ValueError, match=r'model\.mask_ratio 0\.95 leaves 0 of 16 patches visible'):
        select_patches(scores(), 0.95)
    # int() rounds the visible patches down, so a tiny ratio still masks one, until it is lost in rounding.
    assert (select_patches(scores(), 1e-9).mask.sum(1) == 1).all()
    with pytest.raises(ValueError, match=r'leaves 16 of 16 patches visible'):
        select_patches(scores(), 1e-17)


def test_negative_temperature():
    with pytest.raises(ValueError, match=r'model\.temperature must not be negative, got -1'):
        select_patches(scores(), 0.75, temperature=-1)


@pytest.mark.parametrize('share', [0.0, 0.25, 0.5, 1.0])
def test_a_share_of_the_masked_patches_is_guided(share):
    torch.manual_seed(1)  # not that of the scores
    x = scores(batch=400)
    mask = select_patches(x, 0.75, guided_share=share).mask  # 12 of 16
    assert (mask.sum(dim=1) == 12).all()
    order = x.argsort(dim=1, descending=True)
    by_rank = mask.gather(1, order).mean(dim=0)  # how often the best, the second best ... patch is masked
    guided = round(share * 12)
    assert (by_rank[:guided] == 1).all()
    rest = by_rank[guided:]
    torch.testing.assert_close(rest, torch.full_like(rest, (12 - guided) / (16 - guided)), atol=0.12, rtol=0)


@pytest.mark.parametrize('share', [-0.1, 1.1])
def test_a_share_beyond_its_range_is_refused(share):
    with pytest.raises(ValueError, match='model.guided_share must be from 0 to 1'):
        select_patches(scores(), 0.75, guided_share=share)
