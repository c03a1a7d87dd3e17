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
        model = getattr(runner.model, 'module', runner.model)
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
            for watched in self._watch(model, statistics):
                self._warn(runner.iter + 1, *watched)

    def _warn(self, iteration: int, name: str, text: str, crossed: bool, change: str) -> None:
        before = self._crossings.get(name, 0)
        self._crossings[name] = before + 1 if crossed else 0
        if self._crossings[name] == self.patience:
            print_log(
                f'iteration {iteration}: the masks collapse, {text}. Try {change}; see docs/troubleshooting.md',
                'current',
                logging.WARNING,
            )
        elif before >= self.patience and not crossed:
            print_log(f'iteration {iteration}: the masks recover, {text}', 'current')

    def _watch(self, model: Any, statistics: dict[str, float]) -> Iterator[tuple[str, str, bool, str]]:
        """Give name, text, whether the bound is crossed, and what to change, where a bound means something for the model."""
        overlap, saturation, mean = (statistics[name] for name in ('overlap', 'saturation', 'mean_score'))
        adversarial = hasattr(model, 'mask_losses')
        first = 'a larger model.diversity.loss_weight, ' if adversarial else ''
        # Name, bound, what is bounded, the number as it is written, and what to change.
        watched = [('overlap', 'max_overlap', overlap, f'{overlap:.2f}', f'{first}{_LR}, or model.temperature above 0')]
        if adversarial:
            ratio = model.mask_ratio
            text = f'{mean:.2f} at a mask_ratio of {ratio}'
            watched.append(('mean_score', 'max_ratio_gap', abs(mean - ratio), text, 'a larger model.ratio.loss_weight'))
        else:
            warm = f'{_LR}, or model.temperature above 0'
            watched.append(('saturation', 'max_saturation', saturation, f'{saturation:.2f}', warm))
            normalize = f'model.normalize_weights=True, or {_LR}'
            watched.append(('mean_score', 'min_mean_score', mean, f'{mean:.3f}', normalize))
        for name, bound, number, text, change in watched:
            limit = self.bounds[bound]
            if limit is not None:
                crossed = number < limit if bound.startswith('min') else number > limit
                yield name, f'masks/{name} is {text} ({bound}={limit})', crossed, change
