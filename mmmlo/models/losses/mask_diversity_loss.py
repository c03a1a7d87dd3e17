"""Keep the masks of different images apart by CL-MAE's diversity loss."""

import torch
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError


@MODELS.register_module()
class MaskDiversityLoss(nn.Module):
    """Mean over pairs of images of ``exp(-scale * ||p_b - p_c||)``, 1 if all masks are one mask (Madan et al., 2024).

    Between two masks that coincide exactly there is no direction to part them in: that pair's gradient is 0. Each process
    compares its own images, as released.

    Args:
        loss_weight (float): Weight of the loss; 0 switches it off. Defaults to 2, as released.
        scale (float): Factor of the Euclidean distance. Defaults to 0.1, as released.
    """

    def __init__(self, loss_weight: float = 2.0, scale: float = 0.1) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.scale = scale

    def forward(self, mask_prob: torch.Tensor) -> torch.Tensor:
        """Compute the loss, a scalar, of scores, B x L, in (0, 1), of two images or more; of keep weights it is the same."""
        if not self.loss_weight:
            return mask_prob.new_zeros(())
        count = len(mask_prob)
        if count < 2:
            raise SettingError(
                f'model.diversity compares the masks of different images, but the batch has {count}; raise '
                'train_dataloader.batch_size, or switch the loss off by model.diversity.loss_weight=0'
            )
        # Not by a matrix product: it would lose the small distances, and their gradient, of masks that almost coincide.
        distances = torch.cdist(mask_prob, mask_prob, compute_mode='donot_use_mm_for_euclid_dist')  # B x B
        # Each pair twice, and each image once with itself, at distance 0.
        similarity = torch.exp(-self.scale * distances).sum() - count
        return self.loss_weight * similarity / (count * (count - 1))
