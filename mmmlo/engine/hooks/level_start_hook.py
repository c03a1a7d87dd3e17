"""Lets a level begin when there is something to learn from."""

import logging
import math
import warnings
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log

from mmmlo.registry import HOOKS
from mmmlo.utils.errors import SettingError
from mmmlo.utils.modules import unwrap

from ..optim_wrappers import MultiLevelOptimWrapper
from ..reduce import reduce_mean


@HOOKS.register_module()
class LevelStartHook(Hook):
    """Holds a level until its loss beats chance: as long as MLO-MAE's head guesses, hypergradients are noise.

    A level that is held does not move. When it is due, its loss is computed without a gradient and logged. Its steps are
    counted all the same, so that schedules keep their length. A resumed run goes on as the checkpoint's did.

    Args:
        margin (float): By which share of chance the loss must lie below it, in (0, 1).
        level (str): The level, above the lowest. Defaults to 'masking', whose loss is the head's on D_val.
        chance (float, optional): The loss of a guess. Defaults to None: the logarithm of ``model.downstream.num_classes``.
        interval (int): Iterations between decisions, each by the mean loss since the last one. Defaults to 50.

    Raises:
        SettingError: If a value is not in its range; before training, if there is no such level or chance is not known.
    """

    # Before the logger, as all hooks that measure.
    priority = 'NORMAL'

    def __init__(
        self, margin: float, level: str = 'masking', chance: float | None = None, interval: int = 50
    ) -> None:
        if not 0 < margin < 1:
            raise SettingError(f'LevelStartHook.margin must be between 0 and 1, both excluded, got {margin}')
        if interval < 1:
            raise SettingError(f'LevelStartHook.interval must be at least 1, got {interval}')
        self.margin, self.level, self.interval = margin, level, interval
        self.chance = math.nan if chance is None else chance
        self._held = True
        self._count = 0
        self._total: Any = 0.0  # of the losses since the last decision; on their device once there is one

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Take over where a run that is resumed stood."""
        saved = checkpoint.get('level_start', {}).get(self.level)
        if runner._resume and saved:
            self._held, self._count, self._total = saved['held'], saved['count'], saved['total']

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add whether the level is held, and the losses since the last decision."""
        state = dict(held=self._held, count=self._count, total=float(self._total))
        checkpoint.setdefault('level_start', {})[self.level] = state

    def before_train(self, runner) -> None:
        """Hold the level."""
        wrapper, model = runner.optim_wrapper, unwrap(runner.model)
        levels = wrapper.levels[1:] if isinstance(wrapper, MultiLevelOptimWrapper) else []
        if self.level not in levels:
            raise SettingError(
                f'LevelStartHook.level is {self.level!r}, but the levels above the lowest are {levels}; '
                'name one of them, or take the hook out of custom_hooks'
            )
        if math.isnan(self.chance):
            classes = getattr(getattr(model, 'downstream', None), 'num_classes', None)
            if classes is None:
                raise SettingError('LevelStartHook.chance is missing, and model.downstream has no num_classes to tell it')
            self.chance = math.log(classes)
        wrapper.level(self.level).held = self._held
        # Its schedules move, and its optimizer does not yet.
        warnings.filterwarnings('ignore', message=r'Detected call of `scheduler\.step\(\)` before')

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None) -> None:
        """Add up the losses, and let the level begin if they are low enough."""
        if not self._held:
            return
        loss = (outputs or {}).get(f'{self.level}/loss')
        if loss is not None:
            (mean,) = reduce_mean([loss])  # processes must decide alike
            self._count, self._total = self._count + 1, self._total + mean
        if not self._count or not self.every_n_train_iters(runner, self.interval):
            return
        average, limit = float(self._total / self._count), (1 - self.margin) * self.chance
        self._count, self._total = 0, 0.0
        if average < limit:
            self._held = runner.optim_wrapper.level(self.level).held = False
            print_log(
                f'iteration {runner.iter + 1}: level {self.level!r} begins, its loss is {average:.3f}, and chance '
                f'{self.chance:.3f}', 'current'
            )

    def after_train(self, runner) -> None:
        """Tell if the level never began."""
        if self._held:
            print_log(
                f'level {self.level!r} never began: its loss did not fall below {(1 - self.margin) * self.chance:.3f}. '
                'Lower LevelStartHook.margin, or train longer', 'current', logging.WARNING
            )
