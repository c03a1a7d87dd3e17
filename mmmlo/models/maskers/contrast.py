"""Score patches by their contrast, without labels and without learning."""

import torch
from torch.nn.functional import avg_pool2d

from mmmlo.registry import MODELS

from .base import BaseMasker, to_mask_prob


def patch_variance(images: torch.Tensor, patch_size: int | tuple[int, int]) -> torch.Tensor:
    """Compute the variance of each patch over its pixels and channels, B x L, of images B x C x H x W."""
    mean, square = (avg_pool2d(x, patch_size).mean(dim=1).flatten(1) for x in (images, images**2))  # B x L each
    return square - mean**2


@MODELS.register_module()
class ContrastMasker(BaseMasker):
    """The logarithm of a patch's variance over its pixels, less the image's mean: what every learned score has to beat.

    Args:
        patch_size (int): Patch size in pixels, the backbone's.
        init_cfg (dict, optional): Not used. Defaults to None.
    """

    patch_size: int

    def __init__(self, patch_size: int, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.patch_size = patch_size

    def forward(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Score the patches; see :meth:`BaseMasker.forward`."""
        contrast = patch_variance(images, self.patch_size).clamp(min=1e-4).log()  # B x L
        return to_mask_prob(contrast - contrast.mean(dim=1, keepdim=True))
