import pytest
import torch

from mmmlo.models import BlockMasker, GridMasker
from mmmlo.models.selection import select_patches


def masks(masker, ratio, batch=50, grid=(14, 14)):
    torch.manual_seed(0)
    masker.mask_ratio = ratio
    scores = masker(None, torch.zeros(batch, grid[0] * grid[1], 8), grid)
    assert scores.shape == (batch, grid[0] * grid[1]) and ((scores > 0) & (scores < 1)).all()
    return select_patches(scores, ratio).mask.unflatten(1, grid)


def test_a_small_ratio_is_a_part_of_one_block_of_the_areas_and_aspects():
    """At a ratio below the least area, what is masked lies in one rectangle of the largest area, whose sides are known."""
    for mask in masks(BlockMasker(area=(0.25, 0.25), aspect=(4, 4)), 0.2):
        rows, columns = mask.nonzero().T
        assert rows.max() - rows.min() < 14 and columns.max() - columns.min() < 4  # sqrt(49 * 4) by sqrt(49 / 4)
    for mask in masks(BlockMasker(area=(0.25, 0.25), aspect=(1, 1)), 0.25):
        rows, columns = mask.nonzero().T
        assert (rows.max() - rows.min(), columns.max() - columns.min()) == (6, 6) and mask.sum() == 49


@pytest.mark.parametrize('ratio', [0.4, 0.75, 0.9])
@pytest.mark.parametrize('settings', [{}, dict(area=(0.15, 0.2), aspect=(0.75, 1.5))])
def test_blocks_fill_the_ratio_and_cluster(ratio, settings):
    mask = masks(BlockMasker(**settings), ratio)
    assert (mask.flatten(1).sum(dim=1) == 196 - int(196 * (1 - ratio))).all()
    seen = 1 - mask
    near = (seen[:, :, :-1] * seen[:, :, 1:]).mean() / seen.mean() ** 2
    assert near > (1.15 if ratio < 0.5 else 1.7)
    assert mask[:, 7, 7].mean() > mask[:, 0, 0].mean()


def test_what_blocks_cannot_be_or_fill_is_named():
    with pytest.raises(ValueError, match=r'model.masker.area must be two numbers above 0 in order, got \(0.5, 0.2\)'):
        BlockMasker(area=(0.5, 0.2))
    with pytest.raises(ValueError, match='1000 blocks of model.masker.area .* do not cover 4051 of 4096 patches'):
        masks(BlockMasker(area=(1e-4, 2e-4)), 0.989, batch=1, grid=(64, 64))


def test_a_grid_leaves_one_patch_of_each_square():
    for ratio, step in ((0.75, 2), (8 / 9, 3)):
        seen = 1 - masks(GridMasker(), ratio, grid=(12, 6))
        squares = seen.unflatten(1, (-1, step)).unflatten(3, (-1, step))  # B x H/n x n x W/n x n
        assert (squares.sum(dim=(2, 4)) == 1).all()
        assert (squares == squares[:, :1, :, :1]).all()
        places = squares[:, 0, :, 0].flatten(1).argmax(dim=1)
        assert len(places.unique()) == step**2


@pytest.mark.parametrize(('ratio', 'grid'), [(0.7, (8, 8)), (0.75, (7, 8)), (0.1, (8, 8))])
def test_ratios_without_a_grid_are_refused(ratio, grid):
    with pytest.raises(ValueError, match=f'model.mask_ratio {ratio} leaves no regular grid of {grid[0]} x {grid[1]}'):
        masks(GridMasker(), ratio, grid=grid)
