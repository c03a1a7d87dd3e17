import pytest
import torch

from mmmlo.models import mask_statistics
from mmmlo.models.selection import select_patches


def test_one_mask_for_every_image_overlaps_fully():
    mask = torch.tensor([[1.0, 1, 0, 0]]).expand(4, -1)
    assert mask_statistics(torch.rand(4, 4), mask)['overlap'] == pytest.approx(1)


def test_disjoint_visible_sets_do_not_overlap():
    assert mask_statistics(torch.rand(4, 4), 1 - torch.eye(4))['overlap'] == pytest.approx(0)


def test_overlap_is_the_mean_over_pairs():
    mask = 1 - torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0]])
    # Intersection over union: 2 / 2 for one pair, 1 / 3 for the two others.
    assert mask_statistics(torch.rand(3, 4), mask)['overlap'] == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)


def test_random_masks_overlap_by_v_over_two_minus_v():
    torch.manual_seed(0)
    mask = select_patches(torch.rand(16, 4096), 0.75).mask
    assert mask_statistics(torch.rand(16, 4096), mask)['overlap'] == pytest.approx(0.25 / 1.75, abs=5e-3)


def test_scores():
    scores = torch.tensor([[0.001, 0.5, 0.999, 0.02], [0.98, 0.009, 0.2, 0.3]])
    statistics = mask_statistics(scores, 1 - torch.eye(2, 4))
    assert statistics['saturation'] == pytest.approx(3 / 8)
    assert statistics['mean_score'] == pytest.approx(scores.sum().item() / 8)
    assert all(type(value) is float for value in statistics.values())


def test_one_image_has_no_pairs():
    with pytest.raises(ValueError, match='at least two images'):
        mask_statistics(torch.rand(1, 4), torch.eye(1, 4))
