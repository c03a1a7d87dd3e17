"""What all maskers promise, and what is measured of their masks."""

import pytest
import torch

from mmmlo.models.maskers import ConvMasker, MLPMasker, ViTMasker, mask_statistics
from mmmlo.models.maskers.base import to_mask_prob
from mmmlo.models.selection import select_patches

MASKERS = dict(
    mlp=lambda: MLPMasker(grid=(8, 8), embed_dims=16),
    conv=lambda: ConvMasker(patch_size=2, dims=16),
    vit=lambda: ViTMasker(embed_dims=16, grid=(8, 8), depth=1),
)


@pytest.mark.parametrize('name', MASKERS)
def test_scores_keep_their_precision_under_autocast(name):
    """Scores around 0.5 would be multiples of 1/512 in bfloat16, a third of the patches of an image tied with another."""
    torch.manual_seed(0)
    masker = MASKERS[name]()
    images, tokens = torch.randn(2, 3, 16, 16), torch.randn(2, 64, 16)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        scores = masker(images, tokens, (8, 8))
    assert scores.dtype == torch.float32
    assert ((scores > 0) & (scores < 1)).all()
    assert not torch.equal(scores, scores.bfloat16().float())


def test_large_logits_of_half_precision_are_not_certain():
    assert to_mask_prob(torch.tensor([9.0], dtype=torch.float16)) < 1
    assert to_mask_prob(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


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
