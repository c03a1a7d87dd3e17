"""Push scores to 0 or 1 by CL-MAE's Gaussian loss."""

import math

import torch
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError


@MODELS.register_module()
class MaskBinarizationLoss(nn.Module):
    """Mean over all scores p of ``sigma * sqrt(2 pi) * exp(-(p - 0.5)^2 / (2 sigma^2))`` (Madan et al., 2024).

    A hill at 0.5, which scores roll off to either side: soft masks are trained with, hard ones are used. The height is the
    released code's, 0.30 at the default sigma: it divides the exponential by the density's factor in place of multiplying.
    Far from 0.5 there is next to no slope; at the default sigma it is steepest at 0.38 and 0.62.

    Args:
        loss_weight (float): Weight of the loss; 0 switches it off. Defaults to 1, as released.
        sigma (float): Width of the hill, positive. Defaults to 0.12, as released.
    """

    def __init__(self, loss_weight: float = 1.0, sigma: float = 0.12) -> None:
        super().__init__()
        if not sigma > 0:
            raise SettingError(f'model.binarization.sigma must be positive, got {sigma}')
        self.loss_weight = loss_weight
        self.sigma = sigma

    def forward(self, mask_prob: torch.Tensor) -> torch.Tensor:
        """Compute the loss, a scalar, of scores, B x L, in (0, 1); of keep weights it is the same."""
        if not self.loss_weight:
            return mask_prob.new_zeros(())
        hill = torch.exp(-((mask_prob - 0.5) ** 2) / (2 * self.sigma**2))
        return self.loss_weight * self.sigma * math.sqrt(2 * math.pi) * hill.mean()
