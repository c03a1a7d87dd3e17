"""What the statistics of masks say in words, and what to change."""

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ['Sign', 'chance_overlap', 'collapse_signs']

_LR = 'a lower optim_wrapper.levels.masking.optimizer.lr'
_WARMER = f'{_LR}, or model.temperature above 0'


class Sign(NamedTuple):
    """A statistic beyond its bound: its ``name``, a ``text`` with value and bound, and what to ``change``."""

    name: str
    text: str
    change: str


def chance_overlap(mask_ratio: float) -> float:
    """Expect the overlap of independent random masks: v / (2 - v) for a share v of visible patches."""
    return (1 - mask_ratio) / (1 + mask_ratio)


def collapse_signs(statistics: Mapping[str, float], mask_ratio: float, binary: bool = False) -> list[Sign]:
    """Find the signs of a collapse among the statistics of a learned masker.

    An overlap is one from half way between chance and one mask for all images on: masks that collapsed in measured runs
    were beyond it from 50 steps on.

    Args:
        statistics (Mapping[str, float]): ``overlap``, ``saturation`` and ``mean_score`` of
            :func:`mmmlo.models.maskers.mask_statistics`.
        mask_ratio (float): The model's.
        binary (bool): Whether losses drive scores to 0 and 1, in the share of the mask ratio, as in CL-MAE.
    """
    found, saturation, mean = statistics['overlap'], statistics['saturation'], statistics['mean_score']
    various = f'a larger model.diversity.loss_weight, {_WARMER}' if binary else _WARMER
    bound = round((1 + chance_overlap(mask_ratio)) / 2, 2)
    signs = [('overlap', found > bound, f'{found:.2f}, above {bound}', various)]
    if binary:
        text = f'{mean:.2f}, not within 0.3 of the mask_ratio {mask_ratio}'
        signs.append(('mean_score', abs(mean - mask_ratio) > 0.3, text, 'a larger model.ratio.loss_weight'))
    else:
        signs.append(('saturation', saturation > 0.9, f'{saturation:.2f}, above 0.9', various))
        signs.append(('mean_score', mean < 0.05, f'{mean:.3f}, below 0.05', f'model.normalize_weights=True, or {_LR}'))
    return [Sign(name, text, change) for name, crossed, text, change in signs if crossed]
