"""The curriculum of CL-MAE: from masks that help the autoencoder to masks that work against it."""

import logging
import math
from collections.abc import Iterable
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log

from mmmlo.registry import HOOKS
from mmmlo.utils.errors import SettingError

SCHEDULES = ('linear', 'cosine', 'step', 'constant')


def curriculum_factor(
    position: float,
    length: float,
    schedule: str = 'linear',
    start: float = 0,
    neutral: float | None = None,
    end: float | None = None,
    partner: float = 1.0,
    adversary: float = -1.0,
) -> float:
    """The factor of the masker's reconstruction term at a point of the run.

    ``partner`` until ``start``, towards 0 until ``neutral``, ``adversary`` at the last position before ``end``. With s the
    share of the way that is left before ``neutral``, (neutral - position) / (neutral - start), or gone from it on,
    (position + 1 - neutral) / (end - neutral), the factor is ``partner`` or ``adversary`` times s ('linear'), times
    sin(pi / 2 * s) ('cosine', a half wave if both parts are equally long) or times 1 ('step'). 'constant' is always
    ``partner``.

    The defaults are the released code's curriculum (main_pretrain.py, lines 195 to 203): for E epochs, 1 - 2e/E before
    E/2 and 1 - 2(e + 1)/E from there on. The one is added so that the last epoch has exactly -1; 0 is skipped.

    Args:
        position (float): Epochs or iterations so far, 0 in the first.
        length (float): Epochs or iterations of the run.
        schedule, start, neutral, end, partner, adversary: See :class:`CurriculumHook`.

    Returns:
        float: The factor.

    Raises:
        SettingError: If the schedule is unknown, the length not positive, or start, neutral and end are not in this order.
    """
    if schedule not in SCHEDULES:
        raise SettingError(f'CurriculumHook.schedule must be one of {list(SCHEDULES)}, got {schedule!r}')
    if length <= 0:
        raise SettingError(f'a curriculum needs a run of at least one epoch or iteration, got a length of {length}')
    neutral, end = _milestones(start, neutral, length if end is None else end)
    if schedule == 'constant':
        return float(partner)
    # The ends are asked for first: a part of length 0 has no shares.
    if position < neutral:
        factor, share = partner, 1.0 if position <= start else (neutral - position) / (neutral - start)
    else:
        factor, share = adversary, 1.0 if position + 1 >= end else (position + 1 - neutral) / (end - neutral)
    if schedule == 'step':
        share = 1.0
    elif schedule == 'cosine':
        share = math.sin(math.pi / 2 * share)
    return float(factor * share)


def _milestones(start: float, neutral: float | None, end: float) -> tuple[float, float]:
    """Where the factor passes 0 and where it has arrived."""
    if not start >= 0:
        raise SettingError(f'CurriculumHook.start must not be negative, got {start}')
    if not end > start:
        raise SettingError(
            f'CurriculumHook.end must come after start, got start={start} and end={end}; end is the length of the run '
            'unless it is given'
        )
    neutral = (start + end) / 2 if neutral is None else neutral
    if not start <= neutral <= end:
        raise SettingError(f'CurriculumHook.neutral must lie between start={start} and end={end}, got {neutral}')
    return neutral, end


@HOOKS.register_module()
class CurriculumHook(Hook):
    """Sets ``model.curriculum_factor`` of :class:`mmmlo.CLMAE` before each iteration, and logs it.

    The factor of the masker's reconstruction term runs from ``partner`` through 0 to ``adversary``; see
    :func:`curriculum_factor`. By default it is the released code's, linear and constant within an epoch.

    It is a function of the iteration and of the length of the run, so a resumed run goes on exactly where it was, also from
    inside of an epoch, and one that is resumed with another length would jump, which is refused unless ``allow_new_length``
    is set. An epoch is as many iterations as ``train_dataloader`` has batches, also in runs that are given ``max_iters``.

    Put it in a config as ``custom_hooks=[dict(type='mmmlo.CurriculumHook')]``.

    Args:
        schedule (str): 'linear', 'cosine', 'step' or 'constant'. Defaults to 'linear'.
        by_epoch (bool): Whether the factor moves once an epoch, and ``start``, ``neutral`` and ``end`` are epochs; if not,
            once an iteration. Defaults to True.
        start (float): Epoch or iteration at which the factor begins to fall. Defaults to 0.
        neutral (float, optional): Where it passes 0. Defaults to half way between ``start`` and ``end``.
        end (float, optional): Where it has arrived. Defaults to the length of the run.
        partner (float): The first factor, and that of 'constant'. Defaults to 1.
        adversary (float): The last factor. Defaults to -1.
        allow_new_length (bool): Whether a run may be resumed with another length or curriculum than the checkpoint's: a
            warning in place of an error. Defaults to False.

    Raises:
        SettingError: If the schedule is unknown, or start, neutral and end are not in this order; before training, if the
            model has no ``curriculum_factor``, or the checkpoint to resume from is of another length or curriculum.
    """

    # Before the logger, as all hooks that measure.
    priority = 'NORMAL'

    def __init__(
        self,
        schedule: str = 'linear',
        by_epoch: bool = True,
        start: float = 0,
        neutral: float | None = None,
        end: float | None = None,
        partner: float = 1.0,
        adversary: float = -1.0,
        allow_new_length: bool = False,
    ) -> None:
        self.by_epoch = by_epoch
        self.allow_new_length = allow_new_length
        self._settings: dict[str, Any] = dict(
            schedule=schedule, start=start, neutral=neutral, end=end, partner=partner, adversary=adversary
        )
        # How long the run is, is not known yet.
        curriculum_factor(0, math.inf, **self._settings)
        self._loaded: dict | None = None

    def before_train(self, runner) -> None:
        """Check that model, length and, when resuming, checkpoint fit."""
        model = getattr(runner.model, 'module', runner.model)
        if not hasattr(model, 'curriculum_factor'):
            raise SettingError(
                f'CurriculumHook sets model.curriculum_factor, which mmmlo.CLMAE has, but a {type(model).__name__} has not; '
                'take the hook out of custom_hooks, or train a mmmlo.CLMAE'
            )
        run = self._describe(runner)
        if run['end'] > run['length']:
            print_log(
                f'CurriculumHook.end is {run["end"]}, but the run has a length of {run["length"]}; the last factor will be '
                f'{curriculum_factor(run["length"] - 1, run["length"], **self._settings):.2f}',
                'current',
                logging.WARNING,
            )
        # A run that only begins with a checkpoint's weights stands at iteration 0.
        if runner.iter and self._loaded is not None:
            self._compare(self._loaded, run)
        self._loaded = None

    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | tuple | list | None = None) -> None:
        """Set and log the factor; a number of Python's, for which nothing waits."""
        length, epoch = self._lengths(runner)
        # Not the runner's own epoch: resumed from inside of an epoch it begins that one anew, and lags behind from then on.
        position = runner.iter // epoch if self.by_epoch else runner.iter
        factor = curriculum_factor(position, length, **self._settings)
        getattr(runner.model, 'module', runner.model).curriculum_factor = factor
        runner.message_hub.update_scalar('train/curriculum_factor', factor)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the curriculum and the length of the run."""
        checkpoint['curriculum'] = self._describe(runner)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep what the checkpoint says until it is known whether the run is resumed."""
        self._loaded = checkpoint.get('curriculum', {})

    def _lengths(self, runner) -> tuple[int, int]:
        """Length of the run in the curriculum's unit, and iterations in that unit."""
        # From the iterations, because a multi-level loop that is resumed counts its epochs anew.
        unit = len(runner.train_dataloader) if self.by_epoch else 1
        return math.ceil(runner.max_iters / unit), unit

    def _describe(self, runner) -> dict[str, Any]:
        """Give all that the factor depends on, with the defaults filled in."""
        length, unit = self._lengths(runner)
        settings = dict(self._settings)
        end = length if settings['end'] is None else settings['end']
        settings['neutral'], settings['end'] = _milestones(settings['start'], settings['neutral'], end)
        return dict(settings, by_epoch=self.by_epoch, length=length, unit=unit, max_iters=runner.max_iters)

    def _compare(self, saved: dict, run: dict) -> None:
        if not saved:
            print_log(
                'The checkpoint says nothing about a curriculum: CurriculumHook cannot tell whether its run had the one of '
                f'this run, {_format(run, run)}',
                'current',
                logging.WARNING,
            )
        elif saved != run:
            odd = [name for name, value in run.items() if saved.get(name) != value]
            message = (
                f"The checkpoint's curriculum is not this run's, and the factor would jump: the checkpoint has "
                f'{_format(saved, odd)}; this run has {_format(run, odd)}.'
            )
            if not self.allow_new_length:
                raise SettingError(
                    f'{message} Resume with the length and the settings of the checkpoint, or set '
                    "CurriculumHook.allow_new_length=True to go on with this run's curriculum"
                )
            print_log(f'{message} Going on with the latter (allow_new_length=True)', 'current', logging.WARNING)


def _format(curriculum: dict, names: Iterable[str]) -> str:
    return ', '.join(f'{name}={curriculum.get(name)}' for name in names)
