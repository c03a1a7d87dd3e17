"""Score the patches of images of any size by a small convolutional network."""

import torch
from torch import nn

from mmmlo.registry import MODELS

from .base import BaseMasker, to_mask_prob


class _ResidualBlock(nn.Module):
    """Norm, 3 x 3 convolution and GELU, added to the input."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.GroupNorm(1, dims), nn.Conv2d(dims, dims, 3, padding=1), nn.GELU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


@MODELS.register_module()
class ConvMasker(BaseMasker):
    """Embed the image's patches by its own convolution, mix neighbours, one score a patch, sigmoid.

    It reads the image, not the tokens, so it depends neither on the encoder's width nor on its changes, and takes any
    grid: a few hundred thousand parameters where :class:`MLPMasker` has tens of millions. Ours; not in the paper.

    Args:
        patch_size (int): Patch size in pixels, the backbone's.
        in_channels (int): Image channels. Defaults to 3.
        dims (int): Width of the feature map. Defaults to 128.
        depth (int): Residual 3 x 3 blocks. Defaults to 2.
    """

    def __init__(
        self, patch_size: int, in_channels: int = 3, dims: int = 128, depth: int = 2, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.patch_size = patch_size
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, dims, patch_size, stride=patch_size),
            *[_ResidualBlock(dims) for _ in range(depth)],
            nn.GroupNorm(1, dims),
            nn.Conv2d(dims, 1, 1),
        )

    def forward(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Score the patches; see :meth:`BaseMasker.forward`."""
        return to_mask_prob(self.layers(images).flatten(1))
