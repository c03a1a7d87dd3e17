"""Choose masked and visible patches by their scores."""

from typing import NamedTuple

import torch

from mmmlo.utils.errors import SettingError


class PatchSelection(NamedTuple):
    """Which patches are masked.

    Attributes:
        mask (torch.Tensor): 1 = masked, 0 = visible or thrown away, B x L.
        ids_keep (torch.Tensor): Indices of the visible patches, B x V.
        ids_masked (torch.Tensor): Indices of the masked patches, B x M.
        ids_restore (torch.Tensor): Permutation that restores the patch order after [visible, thrown, masked], B x L.
    """

    mask: torch.Tensor
    ids_keep: torch.Tensor
    ids_masked: torch.Tensor
    ids_restore: torch.Tensor


def num_visible(num_patches: int, mask_ratio: float) -> int:
    """Count the visible patches, ``int(L * (1 - mask_ratio))`` as in MAE.

    Raises:
        SettingError: The ratio is outside (0, 1), or leaves no visible or no masked patch.
    """
    if not 0 < mask_ratio < 1:
        raise SettingError(f'model.mask_ratio must be between 0 and 1, both excluded, got {mask_ratio}')
    visible = int(num_patches * (1 - mask_ratio))
    if not 0 < visible < num_patches:
        raise SettingError(
            f'model.mask_ratio {mask_ratio} leaves {visible} of {num_patches} patches visible; at least one '
            'must be visible and one masked'
        )
    return visible


def gumbel_noise(like: torch.Tensor) -> torch.Tensor:
    """Draw Gumbel noise of a tensor's shape: the largest of log-probabilities with noise is a draw (Gumbel-max)."""
    return -torch.empty_like(like).exponential_().clamp_(min=torch.finfo(like.dtype).tiny).log()


def select_patches(
    scores: torch.Tensor,
    mask_ratio: float,
    temperature: float = 0.0,
    guided_share: float = 1.0,
    throw_ratio: float = 0.0,
) -> PatchSelection:
    """Mask the patches with the largest scores: M(X; T, r) of MLO-MAE.

    Args:
        scores (torch.Tensor): ``mask_prob``, B x L, in (0, 1). No gradient flows through the choice.
        mask_ratio (float): Share of patches to mask.
        temperature (float): Scale of Gumbel noise added to the logarithm of the scores; at 1 masked patches are drawn
            without replacement with probabilities proportional to the scores (Kool et al., 2019). Defaults to 0, the
            paper's hard choice.
        guided_share (float): Share of the masked patches that the scores choose; the others are drawn uniformly. Defaults
            to 1, all.
        throw_ratio (float): Share of patches, those between the masked and the visible ones, that are thrown away: neither
            seen nor reconstructed. Defaults to 0.
    """
    visible = num_visible(scores.shape[1], mask_ratio + throw_ratio)
    first = num_visible(scores.shape[1], mask_ratio)  # of the masked ones, in order of scores
    scores = scores.detach()  # B x L
    if temperature < 0:
        raise SettingError(f'model.temperature must not be negative, got {temperature}')
    if temperature > 0:
        scores = scores.clamp(min=torch.finfo(scores.dtype).tiny).log() + temperature * gumbel_noise(scores)
    if not 0 <= guided_share <= 1:
        raise SettingError(f'model.guided_share must be from 0 to 1, got {guided_share}')
    if guided_share < 1:
        guided = round(guided_share * (scores.shape[1] - first))
        scores = torch.rand_like(scores).scatter(1, scores.topk(guided, dim=1).indices, 2.0)  # above all that is drawn
    ids_shuffle = scores.argsort(dim=1)  # B x L, the visible ones first
    ids_restore = ids_shuffle.argsort(dim=1)  # B x L
    mask = (ids_restore >= first).to(scores.dtype)  # B x L
    return PatchSelection(mask, ids_shuffle[:, :visible], ids_shuffle[:, first:], ids_restore)
