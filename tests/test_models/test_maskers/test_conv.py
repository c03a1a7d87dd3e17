import pytest
import torch

from mmmlo.models import ConvMasker


def images(height, width, batch=2):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def build(**kwargs):
    torch.manual_seed(0)
    return ConvMasker(**{'patch_size': 4, 'dims': 16, 'depth': 1, **kwargs})


@pytest.mark.parametrize('grid', [(4, 4), (2, 6), (6, 3)])
def test_scores_every_patch_of_any_grid(grid):
    masker = build()
    scores = masker(images(4 * grid[0], 4 * grid[1]), None, grid)
    assert scores.shape == (2, grid[0] * grid[1])
    assert scores.min() > 0 and scores.max() < 1
    assert (scores.std(dim=1) > 0).all()


def test_scores_stand_row_by_row():
    """With no blocks and the norm switched off, a score depends on its own patch only."""
    masker = build(depth=0)
    masker.layers[1] = torch.nn.Identity()
    x = images(8, 24)
    scores = masker(x, None, (2, 6))
    x[:, :, 4:8, 8:12] += 1  # row 1, column 2
    changed = (masker(x, None, (2, 6)) != scores).nonzero()
    assert changed.tolist() == [[0, 8], [1, 8]]


def test_neighbours_mix():
    masker = build(depth=2)
    x = images(8, 8).requires_grad_()
    masker(x, None, (2, 2))[0, 0].backward()
    assert (x.grad[0, :, 4:, 4:].abs() > 0).all()
    assert not x.grad[1].any()


@pytest.mark.parametrize('patch_size', [2, 16])
def test_has_a_few_hundred_thousand_parameters(patch_size):
    count = sum(p.numel() for p in ConvMasker(patch_size=patch_size).parameters())
    assert 2e5 < count < 5e5
