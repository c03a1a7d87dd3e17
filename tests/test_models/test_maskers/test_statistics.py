import pytest
import torch

from mmmlo.models.maskers import mask_statistics, score_correlations, visible_overlap
from mmmlo.models.selection import select_patches


def test_entropy_and_places_that_are_never_masked():
    one = torch.tensor([[1.0, 1, 0, 0]]).expand(4, -1)
    found = mask_statistics(torch.full((4, 4), 0.5), one)
    assert (found['entropy'], found['never_masked'], found['score_std']) == (0, 0.5, 0)
    torch.manual_seed(0)
    mask = select_patches(torch.rand(4096, 16), 0.75).mask
    assert mask_statistics(torch.rand(4096, 16), mask)['entropy'] == pytest.approx(1, abs=1e-3)


def test_what_scores_follow():
    grid, generator = (4, 6), torch.Generator().manual_seed(0)
    deviation = torch.rand(2, 1, *grid, generator=generator)
    noise = torch.tensor([1.0, -1.0]).repeat(2, 3, 8, 24).view(2, 3, 16, 24)[..., :24]
    images = noise * deviation.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    found = score_correlations(3 * deviation.flatten(1) + 1, images, grid)
    assert found['contrast'] == pytest.approx(1, abs=1e-5)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 4) * 3 / 4, torch.linspace(-1, 1, 6) * 5 / 6, indexing='ij')
    middle = -torch.hypot(rows, columns).flatten().expand(2, -1)
    assert score_correlations(middle, images, grid)['centre'] == pytest.approx(-1)
    assert score_correlations(torch.full((2, 24), 0.3), images, grid) == dict(contrast=0, centre=0)


def test_overlap_of_the_same_images_at_two_times():
    first = 1 - torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0]])
    second = 1 - torch.tensor([[1.0, 1, 0, 0], [0, 1, 1, 0]])
    assert visible_overlap(first, second) == pytest.approx((1 + 1 / 3) / 2)
