"""Keep the masks of different images apart by CL-MAE's diversity loss."""

import torch
from mmengine.dist import get_world_size
from torch import nn
from torch.distributed.nn.functional import all_gather, all_reduce

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError


@MODELS.register_module()
class MaskDiversityLoss(nn.Module):
    """Mean over pairs of images of ``exp(-scale * ||p_b - p_c||)``, 1 if all masks are one mask (Madan et al., 2024).

    Between two masks that coincide exactly there is no direction to part them in: that pair's gradient is 0.

    Args:
        loss_weight (float): Weight of the loss; 0 switches it off. Defaults to 2, as released.
        scale (float): Factor of the Euclidean distance. Defaults to 0.1, as released.
        across_processes (bool): Whether the pairs are those of all processes' images. Otherwise, as released, each process
            compares its own. Every process must have the same number of images, and the gradients must be averaged over
            processes afterwards, as is usual: they then are those of one process with the whole batch. Each process needs
            memory for its pairs times the patches in the backward pass on a GPU: 0.8 GB for 256 of 4096 images with 196
            patches. Defaults to False.
    """

    def __init__(self, loss_weight: float = 2.0, scale: float = 0.1, across_processes: bool = False) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.scale = scale
        self.across_processes = across_processes

    def forward(self, mask_prob: torch.Tensor) -> torch.Tensor:
        """Compute the loss, a scalar, of scores, B x L, in (0, 1).

        Keep weights 1 - ``mask_prob`` have the same loss.

        Raises:
            SettingError: If there is but one image.
        """
        if not self.loss_weight:
            return mask_prob.new_zeros(())
        distributed = self.across_processes and get_world_size() > 1
        everyone = torch.cat(all_gather(mask_prob)) if distributed else mask_prob  # N x L
        count = len(everyone)
        if count < 2:
            raise SettingError(
                f'model.diversity compares the masks of different images, but the batch has {count}; raise '
                'train_dataloader.batch_size, or switch the loss off by model.diversity.loss_weight=0'
            )
        # Not by a matrix product: it would lose the small distances, and their gradient, of masks that almost coincide.
        distances = torch.cdist(mask_prob, everyone, compute_mode='donot_use_mm_for_euclid_dist')  # B x N
        # Each pair twice, and each image once with itself, at distance 0.
        similarity = torch.exp(-self.scale * distances).sum() - len(mask_prob)
        if distributed:
            # Own rows only, which all processes' sum completes. This sum's gradient is summed too, as is the gather's.
            similarity = all_reduce(similarity)
        return self.loss_weight * similarity / (count * (count - 1))
