"""Logs what the masks look like while they are learned, and warns when they collapse."""

import logging
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log

from mmmlo.models.maskers import mask_statistics
from mmmlo.registry import HOOKS
from mmmlo.utils.errors import SettingError
from mmmlo.utils.modules import unwrap

_LR = 'a lower optim_wrapper.levels.masking.optimizer.lr'
_WARMER = f'{_LR}, or model.temperature above 0'


@HOOKS.register_module()
class MaskStatisticsHook(Hook):
    """Measures the masks of the pretrain level's batch and logs them as ``train/masks/<name>``.

    The mean score, the share of saturated scores and the overlap between images tell whether the masker has collapsed;
    see :func:`mmmlo.models.maskers.mask_statistics`. The measurement draws masks of its own and leaves the random state
    of the training as it was.

    A number that stays beyond its bound is warned of, with what to change, once until it is back. Maskers without
    parameters, as random ones, are not warned of.

    Args:
        interval (int): Iterations between measurements. Defaults to 50.
        patience (int): Measurements in a row before a warning; 0 switches warnings off. CL-MAE begins with one mask for all
            images. Defaults to 5.

    Raises:
        SettingError: If the interval is not positive.
    """

    # Before the logger, which prints what is measured here.
    priority = 'NORMAL'

    def __init__(self, interval: int = 50, patience: int = 5) -> None:
        if interval < 1:
            raise SettingError(f'MaskStatisticsHook.interval must be at least 1, got {interval}')
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
            self._warn(runner.iter + 1, model, **statistics)

    def _warn(self, iteration: int, model: Any, overlap: float, saturation: float, mean_score: float) -> None:
        # Name, whether it is beyond its bound, a text, and what to change.
        if hasattr(model, 'mask_losses'):  # which want scores near 0 and 1, in the share of the mask ratio
            various, ratio = f'a larger model.diversity.loss_weight, {_WARMER}', model.mask_ratio
            text = f'{mean_score:.2f}, not within 0.3 of the mask_ratio {ratio}'
            watched = [('mean_score', abs(mean_score - ratio) > 0.3, text, 'a larger model.ratio.loss_weight')]
        else:
            various, normalize = _WARMER, f'model.normalize_weights=True, or {_LR}'
            watched = [
                ('saturation', saturation > 0.9, f'{saturation:.2f}, above 0.9', various),
                ('mean_score', mean_score < 0.05, f'{mean_score:.3f}, below 0.05', normalize),
            ]
        for name, crossed, text, change in [('overlap', overlap > 0.9, f'{overlap:.2f}, above 0.9', various), *watched]:
            self._crossings[name] = self._crossings.get(name, 0) + 1 if crossed else 0
            if crossed and self._crossings[name] == self.patience:
                print_log(
                    f'iteration {iteration}: the masks collapse, masks/{name} is {text}. Try {change}; see '
                    'docs/troubleshooting.md',
                    'current',
                    logging.WARNING,
                )
