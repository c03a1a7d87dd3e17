"""Logs what the masks look like while they are learned."""

from typing import Any

import torch
from mmengine.hooks import Hook

from mmmlo.models.maskers import mask_statistics
from mmmlo.registry import HOOKS


@HOOKS.register_module()
class MaskStatisticsHook(Hook):
    """Measures the masks of the pretrain level's batch and logs them as ``train/masks/<name>``.

    The mean score, the share of saturated scores and the overlap between images tell whether the masker has collapsed;
    see :func:`mmmlo.models.maskers.mask_statistics`. The measurement draws masks of its own and leaves the random state
    of the training as it was.

    Args:
        interval (int): Iterations between measurements. Defaults to 50.

    Raises:
        ValueError: If the interval is not positive.
    """

    # Before the logger, which prints what is measured here.
    priority = 'NORMAL'

    def __init__(self, interval: int = 50) -> None:
        if interval < 1:
            raise ValueError(f'MaskStatisticsHook.interval must be at least 1, got {interval}')
        self.interval = interval

    @torch.no_grad()
    def after_train_iter(
        self, runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
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
        for name, value in mask_statistics(masking.mask_prob, masking.selection.mask).items():
            runner.message_hub.update_scalar(f'train/masks/{name}', value)
