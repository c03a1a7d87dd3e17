"""Measure whether a masker has collapsed."""

import torch

from mmmlo.utils.errors import SettingError


@torch.no_grad()
def mask_statistics(mask_prob: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    """Measure the masks of a batch.

    Args:
        mask_prob (torch.Tensor): Scores, B x L, in (0, 1).
        mask (torch.Tensor): 1 = masked, 0 = visible, B x L.

    Returns:
        dict[str, float]: ``mean_score``; ``saturation``, the share of scores under 0.01 or over 0.99; ``overlap``, the mean
        over pairs of images of the intersection over union of their visible sets: 1 means one mask for every image,
        independent random masks at ratio 0.75 have about 0.14.

    Raises:
        SettingError: If the batch has fewer than two images, which have no pairs.
    """
    batch = mask.shape[0]
    if batch < 2:
        raise SettingError('the overlap of visible sets needs at least two images')
    visible = 1 - mask.float()  # B x L
    intersection = visible @ visible.T  # B x B
    sizes = visible.sum(dim=1)  # B
    iou = intersection / (sizes[:, None] + sizes[None, :] - intersection)
    overlap = (iou.sum() - iou.diagonal().sum()) / (batch * (batch - 1))
    scores = mask_prob.float()
    return dict(
        mean_score=scores.mean().item(),
        saturation=((scores < 0.01) | (scores > 0.99)).float().mean().item(),
        overlap=overlap.item(),
    )
