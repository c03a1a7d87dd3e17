"""Measure masks: whether they have collapsed, and what they follow."""

import torch

from mmmlo.utils.errors import SettingError

from .contrast import patch_variance

__all__ = ['mask_statistics', 'score_correlations', 'visible_overlap']


@torch.no_grad()
def mask_statistics(mask_prob: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    """Measure whether a masker has collapsed by the masks of a batch of at least two images.

    Args:
        mask_prob (torch.Tensor): Scores, B x L, in (0, 1).
        mask (torch.Tensor): 1 = masked, 0 = visible, B x L.

    Returns:
        dict[str, float]: ``mean_score`` and ``score_std``; ``saturation``, the share of scores under 0.01 or over 0.99;
        ``overlap``, the mean over pairs of images of the intersection over union of their visible sets: 1 means one mask for
        every image, independent random masks at ratio 0.75 have about 0.14; ``entropy`` of being masked, mean over places,
        1 if each place is masked as often as another and 0 if always or never; ``never_masked``, the share of such places.
    """
    batch = mask.shape[0]
    if batch < 2:
        raise SettingError('the overlap of visible sets needs at least two images')
    visible = 1 - mask.float()  # B x L
    intersection = visible @ visible.T  # B x B
    sizes = visible.sum(dim=1)  # B
    iou = intersection / (sizes[:, None] + sizes[None, :] - intersection)
    frequency = mask.double().mean(dim=0)  # L
    scores = mask_prob.float()
    values = dict(
        mean_score=scores.mean(),
        score_std=scores.std(),
        saturation=((scores < 0.01) | (scores > 0.99)).float().mean(),
        overlap=(iou.sum() - iou.diagonal().sum()) / (batch * (batch - 1)),
        entropy=_entropy(frequency).mean() / _entropy(frequency.mean()),
        never_masked=(frequency == 0).float().mean(),
    )
    # One transfer from the device, not six.
    return dict(zip(values, torch.stack([value.double() for value in values.values()]).tolist()))


def _entropy(share: torch.Tensor) -> torch.Tensor:
    return -(torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share))


@torch.no_grad()
def visible_overlap(first: torch.Tensor, second: torch.Tensor) -> float:
    """Average the intersection over union of what two masks, N x L each, leave visible of the same images."""
    both = ((first == 0) & (second == 0)).sum(dim=1)
    either = ((first == 0) | (second == 0)).sum(dim=1)
    return (both / either).mean().item()


@torch.no_grad()
def score_correlations(mask_prob: torch.Tensor, images: torch.Tensor, grid: tuple[int, int]) -> dict[str, float]:
    """Correlate scores with what a rule could read as well, by Pearson's coefficient over all patches.

    Args:
        mask_prob (torch.Tensor): Scores, B x L.
        images (torch.Tensor): Images, B x C x H x W.
        grid (tuple[int, int]): Patches along the height and the width.

    Returns:
        dict[str, float]: ``contrast``, with the deviation of a patch's pixels, and ``centre``, with the distance from the
        image's centre; 0 where one of the two does not vary.
    """
    size = (images.shape[2] // grid[0], images.shape[3] // grid[1])
    contrast = patch_variance(images.float(), size).clamp(min=0).sqrt()  # B x L
    rows, columns = (torch.arange(count, device=images.device) - (count - 1) / 2 for count in grid)
    distance = torch.hypot(rows[:, None] / grid[0], columns[None] / grid[1]).flatten().expand_as(mask_prob)  # B x L
    found = [_correlation(mask_prob, other) for other in (contrast, distance)]
    return dict(zip(('contrast', 'centre'), torch.stack(found).tolist()))


def _correlation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    first, second = (values.double().flatten() - values.double().mean() for values in (first, second))
    product = first.norm() * second.norm()
    return torch.where(product > first.numel() * 1e-12, first @ second / product, torch.zeros_like(product))
