"""Draw random masks, as in MAE."""

import torch

from mmmlo.registry import MODELS

from .base import BaseMasker


@MODELS.register_module()
class RandomMasker(BaseMasker):
    """Uniform noise a patch: masked autoencoders' random masks (He et al., 2022), with weight 1 in the loss."""

    weighted = False

    def forward(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Draw a score a patch; see :meth:`BaseMasker.forward`."""
        return torch.rand(tokens.shape[:2], device=tokens.device)
