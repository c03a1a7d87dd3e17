"""Logs what the masks look like while they are learned, and warns when they collapse."""

import logging
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log

from mmmlo.models.maskers import mask_statistics
from mmmlo.registry import HOOKS
from mmmlo.utils.errors import SettingError
from mmmlo.utils.modules import unwrap

_LR = 'a lower optim_wrapper.levels.masking.optimizer.lr'


@HOOKS.register_module()
class MaskStatisticsHook(Hook):
    """Measures the masks of the pretrain level's batch and logs them as ``train/masks/<name>``.

    The mean score, the share of saturated scores and the overlap between images tell whether the masker has collapsed;
    see :func:`mmmlo.models.maskers.mask_statistics`. The measurement draws masks of its own and leaves the random state
    of the training as it was.

    A number that stays beyond its bound is warned of, with what to change, once until it is back. Maskers without
    parameters, as random ones, are not warned of. Each bound may be None.

    Args:
        interval (int): Iterations between measurements. Defaults to 50.
        max_overlap (float, optional): Defaults to 0.9.
        max_saturation (float, optional): Not for models with a loss that wants scores near 0 and 1, as :class:`mmmlo.CLMAE`.
            Defaults to 0.9.
        min_mean_score (float, optional): The same. Defaults to 0.05.
        max_ratio_gap (float, optional): Largest distance from the mean score to ``mask_ratio``, for models with a loss that
            draws it there, as :class:`mmmlo.CLMAE`. Defaults to 0.3.
        patience (int): Measurements in a row before a warning. CL-MAE begins with one mask for all images. Defaults to 5.

    Raises:
        SettingError: If the interval or the patience is not positive, or a bound not in [0, 1].
    """

    # Before the logger, which prints what is measured here.
    priority = 'NORMAL'

    def __init__(
        self,
        interval: int = 50,
        max_overlap: float | None = 0.9,
        max_saturation: float | None = 0.9,
        min_mean_score: float | None = 0.05,
        max_ratio_gap: float | None = 0.3,
        patience: int = 5,
    ) -> None:
        for name, count in (('interval', interval), ('patience', patience)):
            if count < 1:
                raise SettingError(f'MaskStatisticsHook.{name} must be at least 1, got {count}')
        self.bounds = dict(
            max_overlap=max_overlap,
            max_saturation=max_saturation,
            min_mean_score=min_mean_score,
            max_ratio_gap=max_ratio_gap,
        )
        for name, bound in self.bounds.items():
            if bound is not None and not 0 <= bound <= 1:
                raise SettingError(f'MaskStatisticsHook.{name} must be in [0, 1], or None, got {bound}')
        self.interval = interval
        self.patience = patience
        self._crossings: dict[str, int] = {}  # in a row

    @torch.no_grad()
    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None) -> None:
        """Measure every ``interval`` iterations, the first one included."""
        if runner.iter and not self.every_n_train_iters(runner, self.interval):
            return
        model = unwrap(runner.model)
        # A multi-level loop hands over level -> batches.
        batch = data_batch['pretrain'][0] if 'pretrain' in data_batch else data_batch
        images = model.data_preprocessor(batch, False)['inputs']
        if images.shape[0] < 2:
            return
        with torch.random.fork_rng([images.device] if images.is_cuda else []):
            tokens, grid = model.backbone.embed(images)
            masking = model.draw_masks(images, tokens, grid)
        statistics = mask_statistics(masking.mask_prob, masking.selection.mask)
        for name, value in statistics.items():
            runner.message_hub.update_scalar(f'train/masks/{name}', value)
        if next(model.masker.parameters(), None) is not None:
            self._warn(runner.iter + 1, model, statistics)

    def _warn(self, iteration: int, model: Any, statistics: dict[str, float]) -> None:
        for bound, number, text, change in _watched(model, **statistics):
            limit = self.bounds[bound]
            if limit is None:
                continue
            crossed = number < limit if bound.startswith('min') else number > limit
            before = self._crossings.get(bound, 0)
            self._crossings[bound] = before + 1 if crossed else 0
            text = f'masks/{text} ({bound}={limit})'
            if self._crossings[bound] == self.patience:
                text = f'iteration {iteration}: the masks collapse, {text}. Try {change}; see docs/troubleshooting.md'
                print_log(text, 'current', logging.WARNING)
            elif before >= self.patience and not crossed:
                print_log(f'iteration {iteration}: the masks recover, {text}', 'current')


def _watched(model: Any, overlap: float, saturation: float, mean_score: float) -> Iterator[tuple[str, float, str, str]]:
    """Yield the name of each bound that means something for the model, what it bounds, a text, and what to change."""
    adversarial = hasattr(model, 'mask_losses')
    first = 'a larger model.diversity.loss_weight, ' if adversarial else ''
    warmer = f'{_LR}, or model.temperature above 0'
    yield 'max_overlap', overlap, f'overlap is {overlap:.2f}', first + warmer
    if adversarial:
        text = f'mean_score is {mean_score:.2f} at a mask_ratio of {model.mask_ratio}'
        yield 'max_ratio_gap', abs(mean_score - model.mask_ratio), text, 'a larger model.ratio.loss_weight'
        return
    yield 'max_saturation', saturation, f'saturation is {saturation:.2f}', warmer
    yield 'min_mean_score', mean_score, f'mean_score is {mean_score:.3f}', f'model.normalize_weights=True, or {_LR}'
