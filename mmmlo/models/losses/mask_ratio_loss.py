"""Hold the mean score at the mask ratio by CL-MAE's Kullback-Leibler loss."""

import torch
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError


@MODELS.register_module()
class MaskRatioLoss(nn.Module):
    """Mean over images of the divergence of their mean score q from the mask ratio r (Madan et al., 2024).

    ``q ln(q / r) + (1 - q) ln((1 - q) / (1 - r))``: 0 where the scores expect as many masked patches as there are.

    The released code sums over a GPU's images, with weight 0.1 and 256 images; the mean needs 25.6 for the same gradient,
    which then depends on no batch size. It also has the ratio 0.75 fixed in the loss, whatever the mask ratio is.

    Args:
        mask_ratio (float): The target r, in (0, 1). Defaults to 0.75.
        loss_weight (float): Weight of the loss; 0 switches it off. Defaults to 25.6.
    """

    def __init__(self, mask_ratio: float = 0.75, loss_weight: float = 25.6) -> None:
        super().__init__()
        if not 0 < mask_ratio < 1:
            raise SettingError(f'model.ratio.mask_ratio must be between 0 and 1, both excluded, got {mask_ratio}')
        self.mask_ratio = mask_ratio
        self.loss_weight = loss_weight

    def forward(self, mask_prob: torch.Tensor) -> torch.Tensor:
        """Compute the loss, a scalar, of scores, B x L, in (0, 1)."""
        if not self.loss_weight:
            return mask_prob.new_zeros(())
        # Scores that have all been rounded to 0 or to 1 would make it 0 times infinity.
        eps = torch.finfo(mask_prob.dtype).eps
        masked = mask_prob.mean(dim=1).clamp(eps, 1 - eps)  # B
        kept = 1 - masked
        divergence = masked * (masked / self.mask_ratio).log() + kept * (kept / (1 - self.mask_ratio)).log()
        return self.loss_weight * divergence.mean()
