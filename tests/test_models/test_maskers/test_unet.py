"""The masks of the U-Net divide each image."""

import pytest
import torch

from mmmlo.models.maskers import UNetMasker


@pytest.mark.parametrize('grid', [(4, 4), (7, 5)])
def test_masks_divide_each_patch_on_any_grid(grid):
    torch.manual_seed(0)
    masker = UNetMasker(patch_size=4, num_masks=3, dims=8)
    images = torch.randn(2, 3, 4 * grid[0], 4 * grid[1])
    masks = masker.soft_masks(images, None, grid)
    assert masks.shape == (2, 3, grid[0] * grid[1])
    torch.testing.assert_close(masks.sum(dim=1), torch.ones(2, grid[0] * grid[1]))
    masks.square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in masker.parameters())


def test_every_mask_is_drawn_as_often():
    torch.manual_seed(0)
    masker = UNetMasker(patch_size=4, num_masks=3, dims=8, depth=1)
    images = torch.randn(1, 3, 16, 16).expand(900, -1, -1, -1)
    masks = masker.soft_masks(images, None, (4, 4))[0]
    drawn = torch.cdist(masker(images, None, (4, 4)), masks).argmin(dim=1).bincount(minlength=3)
    assert (drawn - 300).abs().max() < 60  # four deviations
