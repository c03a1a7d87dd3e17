"""Keep soft masks from becoming empty or full."""

import torch
from torch import nn

from mmmlo.registry import MODELS


@MODELS.register_module()
class MaskAreaLoss(nn.Module):
    """Mean over soft masks of 1 / sin(pi * area), ADIOS's penalty (Shi et al., ICML 2022); an area is a mask's mean.

    It is 1 at area 1/2, sqrt(2) at 1/4 and 3/4, and infinite for masks that hide nothing or all.

    Args:
        loss_weight (float): Weight of the loss. Defaults to 0.1.
    """

    def __init__(self, loss_weight: float = 0.1) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, masks: torch.Tensor) -> torch.Tensor:
        """Compute the loss, a scalar, of masks, ... x L, in [0, 1]."""
        eps = torch.finfo(masks.dtype).eps
        return self.loss_weight * (1 / (torch.pi * masks.mean(dim=-1).clamp(eps, 1 - eps)).sin()).mean()
