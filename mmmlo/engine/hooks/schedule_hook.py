"""Numbers of the model that change in the course of a run: how much scores choose, how much they weight."""

import logging
import math
from abc import abstractmethod
from collections.abc import Mapping
from functools import reduce
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log

from mmmlo.registry import HOOKS
from mmmlo.utils.errors import SettingError
from mmmlo.utils.modules import unwrap

_SHAPES = dict(
    linear=lambda share: share,
    quadratic=lambda share: share**2,
    cosine=lambda share: (1 - math.cos(math.pi * share)) / 2,
    constant=lambda share: 1.0,
)


class BaseScheduleHook(Hook):
    """Sets and logs numbers of the model before each iteration, as functions of the iteration and the length of the run.

    A run that is resumed goes on with the very next values; one that is resumed with another length would jump. An epoch is
    as many iterations as ``train_dataloader`` has batches, also in runs that are given ``max_iters``.

    Args:
        settings (dict): All that the numbers depend on beside the position in the run, for checkpoints.
        by_epoch (bool): Whether they move once an epoch; if not, once an iteration.
        allow_new_length (bool): Whether a run may be resumed with another length or settings than the checkpoint's: a
            warning in place of an error.

    Attributes:
        saved_as (str): Key of length and settings in checkpoints.
        keys (list[str]): Names of the numbers in the model, with dots: 'weighting.ratio'.
        owner (str): Which model has them, for the error where one has not; ends in a comma and a space.
    """

    # Before the logger, as all hooks that measure.
    priority = 'NORMAL'
    saved_as: str
    owner = ''
    keys: list[str]

    def __init__(self, settings: dict[str, Any], by_epoch: bool, allow_new_length: bool) -> None:
        self.by_epoch = by_epoch
        self.allow_new_length = allow_new_length
        self._settings = settings
        self._loaded: dict | None = None

    @abstractmethod
    def values_at(self, position: int, length: int) -> dict[str, float]:
        """Compute the numbers, by their keys, after so many epochs or iterations of so many."""

    def values(self, runner: Any) -> dict[str, float]:
        """Compute the numbers of the iteration at which a run stands."""
        length, unit = self._lengths(runner)
        # Not the runner's own epoch: resumed from inside of an epoch it begins that one anew, and lags behind from then on.
        return self.values_at(runner.iter // unit, length)

    def before_train(self, runner) -> None:
        """Check that the model and, when resuming, the checkpoint fit."""
        model = unwrap(runner.model)
        for key in self.keys:
            holder, name = _holder(model, key)
            number = getattr(holder, name, None)
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise SettingError(
                    f'{type(self).__name__} sets model.{key}, {self.owner}but a {type(model).__name__} has no such number; '
                    'take it out of custom_hooks, or train a model that has it'
                )
        run, saved, what = self._describe(runner), self._loaded, self.saved_as
        # A run that only begins with a checkpoint's weights stands at iteration 0.
        if runner.iter and saved and saved != run:
            message = f"The checkpoint's {what} is not this run's, and its numbers would jump: it is {saved}, not {run}."
            if not self.allow_new_length:
                raise SettingError(
                    f'{message} Resume with the length and the settings of the checkpoint, or set '
                    f"{type(self).__name__}.allow_new_length=True to go on with this run's {what}"
                )
            print_log(f'{message} Going on with the latter (allow_new_length=True)', 'current', logging.WARNING)

    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | tuple | list | None = None) -> None:
        """Set and log the numbers; those of Python, for which nothing waits."""
        for key, value in self.values(runner).items():
            set_number(unwrap(runner.model), key, value)
            runner.message_hub.update_scalar(f'train/{key}', value)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the settings and the length of the run."""
        checkpoint[self.saved_as] = self._describe(runner)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep what the checkpoint says until it is known whether the run is resumed."""
        self._loaded = checkpoint.get(self.saved_as)

    def _lengths(self, runner) -> tuple[int, int]:
        """Length of the run in the hook's unit, and iterations in that unit."""
        # From the iterations, because a multi-level loop that is resumed counts its epochs anew.
        unit = len(runner.train_dataloader) if self.by_epoch else 1
        return math.ceil(runner.max_iters / unit), unit

    def _describe(self, runner) -> dict[str, Any]:
        length, unit = self._lengths(runner)
        return dict(self._settings, by_epoch=self.by_epoch, length=length, unit=unit)


def _holder(model: Any, key: str) -> tuple[Any, str]:
    """The module that has a number, None without one, and the number's name there."""
    *path, name = key.split('.')
    return reduce(lambda module, part: getattr(module, part, None), path, model), name


def set_number(model: Any, key: str, value: float) -> None:
    """Set a number of a model by its key with dots, as 'weighting.ratio'."""
    holder, name = _holder(model, key)
    setattr(holder, name, value)


@HOOKS.register_module()
class ScheduleHook(BaseScheduleHook):
    """Moves numbers of the model from ``start`` to ``end``, such as HPM's guided share, from 0 to a half of what is masked.

    A number stays at ``start`` until the share ``begin`` of the run, and has moved the share p of the way at the end of an
    epoch (iteration) that ends at the share p of the rest: by 'linear' p, by 'quadratic' p^2, by 'cosine' (1 - cos(pi p)) /
    2, by 'constant' all of it at once. So ``end`` is that of the last epoch, and ``schedule='constant'`` is a step at
    ``begin``. A warm-up with random masks and weights 1 is a schedule for ``guided_share`` and one for ``weight_share``.

    Args:
        schedules (dict): Number of the model, as 'guided_share', 'temperature', 'weighting.ratio', 'curriculum_factor' ->
            dict of ``start``, ``end``, ``schedule`` ('linear' without) and ``begin`` (0 without).
        by_epoch (bool): Whether the numbers move once an epoch; if not, once an iteration. Defaults to True.
        allow_new_length (bool): See :class:`BaseScheduleHook`. Defaults to False.

    Raises:
        SettingError: If a schedule is not as said here; before training, if the model has no such number, or the checkpoint
            to resume from is of another length or other schedules.
    """

    saved_as = 'schedule'

    def __init__(self, schedules: Mapping[str, Mapping], by_epoch: bool = True, allow_new_length: bool = False) -> None:
        full = {key: dict(dict(schedule='linear', begin=0.0), **own) for key, own in schedules.items()}
        for key, own in full.items():
            where = f'ScheduleHook.schedules[{key!r}]'
            if set(own) != {'start', 'end', 'schedule', 'begin'}:
                given = sorted(schedules[key])
                raise SettingError(f'{where} needs start and end, and may have schedule and begin, got {given}')
            if own['schedule'] not in _SHAPES:
                raise SettingError(f'{where}.schedule must be one of {list(_SHAPES)}, got {own["schedule"]!r}')
            if not 0 <= own['begin'] < 1:
                raise SettingError(f'{where}.begin is a share of the run, from 0 to below 1, got {own["begin"]}')
        self.keys = list(full)
        super().__init__(full, by_epoch, allow_new_length)

    def values_at(self, position: int, length: int) -> dict[str, float]:
        """Compute the numbers; see :meth:`BaseScheduleHook.values_at`."""
        values = {}
        for key, own in self._settings.items():
            begin = round(own['begin'] * length)
            share = 0.0
            if position >= begin:
                share = _SHAPES[own['schedule']](min((position + 1 - begin) / max(length - begin, 1), 1))
            values[key] = float((1 - share) * own['start'] + share * own['end'])
        return values
