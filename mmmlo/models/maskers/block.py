"""Mask blocks of patches, or all but a regular grid of them."""

import math

import torch

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from ..selection import num_visible
from .base import BaseMasker

_MOST_BLOCKS = 1000


@MODELS.register_module()
class BlockMasker(BaseMasker):
    """Rectangles at random places until ``model.mask_ratio`` is covered, as in BEiT; of the last one, random patches are.

    Weight 1 in the loss. The defaults are BEiT's (Bao et al., ICLR 2022) but for its limit of what a block adds. The
    targets of I-JEPA (Assran et al., CVPR 2023) are ``area=(0.15, 0.2), aspect=(0.75, 1.5)``.

    Args:
        area (tuple[float, float]): Least and largest share of the patches in a block. Defaults to (0.08, 0.4).
        aspect (tuple[float, float]): Least and largest height over width. Defaults to (0.3, 1 / 0.3).

    Raises:
        SettingError: Areas or aspects are not in order and range; at the first batch, if 1,000 blocks are not to cover what
            is to be masked.
    """

    weighted = False

    def __init__(
        self, area: tuple = (0.08, 0.4), aspect: tuple = (0.3, 1 / 0.3), init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        for name, (least, most), top in (('area', area, 1), ('aspect', aspect, math.inf)):
            if not 0 < least <= most <= top:
                raise SettingError(f'model.masker.{name} must be two numbers above 0 in order, got {(least, most)}')
        self.area, self.aspect = area, aspect

    def forward(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Score the patches by the order in which blocks cover them; see :meth:`BaseMasker.forward`."""
        batch, length, device = *tokens.shape[:2], tokens.device
        masked = length - num_visible(length, self.mask_ratio)
        count = self._count(masked, length)
        rows, columns = (torch.arange(size, device=device) for size in grid)
        (top, height), (left, width) = self._draw(count, batch, grid, device)
        tall = (rows >= top) & (rows < top + height)  # N x B x H
        wide = (columns >= left) & (columns < left + width)  # N x B x W
        covered = (tall[..., None] & wide[..., None, :]).flatten(2)  # N x B x L
        # The first block has the highest number, 0 is not covered.
        order = (covered * torch.arange(count, 0, -1, device=device)[:, None, None]).amax(dim=0)  # B x L
        return (order + torch.rand(batch, length, device=device)) / (count + 2)

    def _count(self, masked: int, length: int) -> int:
        """Four times the blocks of mean area that cover this in expectation: to look how many do waits for the device.

        Should they not do in some image, random patches are masked besides.
        """
        area = min(max(sum(self.area) / 2, 1 / length), 0.99)
        expected = math.log(1 - masked / length) / math.log(1 - area)
        if expected > _MOST_BLOCKS:
            raise SettingError(
                f'{_MOST_BLOCKS} blocks of model.masker.area {self.area} do not cover {masked} of {length} patches; lower '
                'model.mask_ratio, or let blocks be larger'
            )
        return math.ceil(4 * expected) + 4

    def _draw(
        self, count: int, batch: int, grid: tuple[int, int], device: torch.device
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """First row and height, first column and width of the blocks of each image, N x B x 1 each."""
        share, ratio, *places = torch.rand(4, count, batch, 1, device=device)
        area = (self.area[0] + share * (self.area[1] - self.area[0])) * grid[0] * grid[1]
        low, high = map(math.log, self.aspect)
        aspect = torch.exp(low + ratio * (high - low))
        block = []
        for size, place, extent in zip(grid, places, ((area * aspect).sqrt(), (area / aspect).sqrt())):
            extent = extent.round().clamp(1, size)
            block.append(((place * (size - extent + 1)).floor(), extent))
        return block


@MODELS.register_module()
class GridMasker(BaseMasker):
    """All patches but one in each square of n x n, at the same place, as MAE's ablation; weight 1 in the loss.

    ``model.mask_ratio`` is 1 - 1 / n^2: 0.75 leaves one of 2 x 2 patches. The place is drawn for each image.

    Raises:
        SettingError: At the first batch, if the ratio is none of these, or n does not divide the grid.
    """

    weighted = False

    def forward(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Score the patches 0 or more than that; see :meth:`BaseMasker.forward`."""
        (height, width), device = grid, tokens.device
        step = round((1 - self.mask_ratio) ** -0.5)
        if step < 2 or abs(1 - 1 / step**2 - self.mask_ratio) > 1e-6 or height % step or width % step:
            raise SettingError(
                f'model.mask_ratio {self.mask_ratio} leaves no regular grid of {height} x {width} patches for '
                'mmmlo.GridMasker; it must be 1 - 1 / n^2, as 0.75, and n divide the grid'
            )
        place = torch.randint(step, (2, len(tokens), 1, 1), device=device)
        rows, columns = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
        visible = (rows % step == place[0]) & (columns % step == place[1])  # B x H x W
        return (0.5 + 0.5 * torch.rand(visible.shape, device=device)).masked_fill(visible, 0.25).flatten(1)
