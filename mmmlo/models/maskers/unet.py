"""Divide the patches of an image among several soft masks."""

import torch
import torch.nn.functional as F
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from .base import BaseMasker


def _block(in_dims: int, dims: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_dims, dims, 3, padding=1), nn.GroupNorm(8, dims), nn.ReLU())


@MODELS.register_module()
class UNetMasker(BaseMasker):
    """Small U-Net on the grid of patches, from whose last layer a softmax divides each patch among N masks.

    As the masking network of ADIOS (Shi et al., ICML 2022), on patches in place of pixels, with sums of scales in place of
    joined ones and the mean of the coarsest map in place of the map itself behind its hidden layers: it takes any grid.

    Args:
        patch_size (int): Patch size in pixels, the backbone's.
        num_masks (int): Masks N of an image. Defaults to 4.
        in_channels (int): Image channels. Defaults to 3.
        dims (int): Width of the maps, a multiple of 8. Defaults to 64.
        depth (int): How many times the grid is halved. Defaults to 2.

    Raises:
        SettingError: There are less than two masks, or the width is no multiple of 8.
    """

    weighted = False

    def __init__(
        self,
        patch_size: int,
        num_masks: int = 4,
        in_channels: int = 3,
        dims: int = 64,
        depth: int = 2,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if num_masks < 2:
            raise SettingError(f'model.masker.num_masks must be at least 2, got {num_masks}')
        if dims % 8:
            raise SettingError(f'model.masker.dims must be a multiple of 8, got {dims}')
        self.patch_size, self.num_masks = patch_size, num_masks
        self.embed = nn.Conv2d(in_channels, dims, patch_size, stride=patch_size)
        self.down = nn.ModuleList(_block(dims, dims) for _ in range(depth + 1))
        self.bottleneck = nn.Sequential(nn.Linear(dims, dims), nn.ReLU(), nn.Linear(dims, dims))
        self.up = nn.ModuleList(_block(dims, dims) for _ in range(depth))
        self.head = nn.Conv2d(dims, num_masks, 1)

    def soft_masks(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Divide the patches among the masks, B x N x L, which sum to 1 over N; arguments as of :meth:`forward`."""
        x, scales = self.embed(images), []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else F.avg_pool2d(x, 2, ceil_mode=True))
            scales.append(x)
        x = scales.pop()
        x = x + self.bottleneck(x.mean(dim=(2, 3)))[:, :, None, None]
        for block in self.up:
            finer = scales.pop()
            x = block(finer + F.interpolate(x, finer.shape[2:], mode='nearest'))
        return self.head(x).flatten(2).softmax(dim=1)

    def forward(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Score the patches by one of the masks, drawn for each image; see :meth:`BaseMasker.forward`."""
        return draw_mask(self.soft_masks(images, tokens, grid)).squeeze(1)


def draw_mask(masks: torch.Tensor) -> torch.Tensor:
    """Draw one mask for each image, B x 1 x L, of masks, B x N x L."""
    drawn = torch.randint(masks.shape[1], (len(masks), 1, 1), device=masks.device)
    return masks.gather(1, drawn.expand(-1, -1, masks.shape[2]))
