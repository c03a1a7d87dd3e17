"""The curriculum of CL-MAE: from masks that help the autoencoder to masks that work against it."""

import logging
import math
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log

from mmmlo.registry import HOOKS
from mmmlo.utils.errors import SettingError
from mmmlo.utils.modules import unwrap

SCHEDULES = ('linear', 'step', 'constant')


def curriculum_factor(
    position: float, length: float, schedule: str = 'linear', partner: float = 1.0, adversary: float = -1.0
) -> float:
    """Compute the factor of the masker's reconstruction term at a point of the run.

    'linear' falls from ``partner`` towards 0 in the first half and goes on from there, to be ``adversary`` in the end: the
    released code's curriculum (main_pretrain.py, lines 195 to 203), for E epochs 1 - 2e/E before E/2 and 1 - 2(e + 1)/E from
    there on. The one is added so that the last epoch has exactly -1; 0 is skipped. 'step' has the ends of both halves
    throughout, 'constant' is always ``partner``.

    Args:
        position (float): Epochs or iterations so far, 0 in the first.
        length (float): Epochs or iterations of the run.
        schedule, partner, adversary: See :class:`CurriculumHook`.
    """
    if schedule not in SCHEDULES:
        raise SettingError(f'CurriculumHook.schedule must be one of {list(SCHEDULES)}, got {schedule!r}')
    neutral = length / 2
    if schedule == 'constant' or position < neutral:
        factor, share = partner, (neutral - position) / neutral
    else:
        factor, share = adversary, min((position + 1 - neutral) / (length - neutral), 1)
    return float(factor * share if schedule == 'linear' else factor)


@HOOKS.register_module()
class CurriculumHook(Hook):
    """Sets and logs the ``curriculum_factor`` of :class:`mmmlo.CLMAE` before each iteration, by :func:`curriculum_factor`.

    It is a function of the iteration and of the length of the run: a run that is resumed with another length would jump.
    An epoch is as many iterations as ``train_dataloader`` has batches, also in runs that are given ``max_iters``.

    Args:
        schedule (str): 'linear', 'step' or 'constant'. Defaults to 'linear'.
        by_epoch (bool): Whether the factor moves once an epoch; if not, once an iteration. Defaults to True.
        partner (float): The first factor, and that of 'constant'. Defaults to 1.
        adversary (float): The last factor. Defaults to -1.
        allow_new_length (bool): Whether a run may be resumed with another length or curriculum than the checkpoint's: a
            warning in place of an error. Defaults to False.

    Raises:
        SettingError: If the schedule is unknown; before training, if the model has no ``curriculum_factor``, or the
            checkpoint to resume from is of another length or curriculum.
    """

    # Before the logger, as all hooks that measure.
    priority = 'NORMAL'

    def __init__(
        self,
        schedule: str = 'linear',
        by_epoch: bool = True,
        partner: float = 1.0,
        adversary: float = -1.0,
        allow_new_length: bool = False,
    ) -> None:
        self.by_epoch = by_epoch
        self.allow_new_length = allow_new_length
        self._settings: dict[str, Any] = dict(schedule=schedule, partner=partner, adversary=adversary)
        curriculum_factor(0, 1, **self._settings)
        self._loaded: dict | None = None

    def before_train(self, runner) -> None:
        """Check that the model and, when resuming, the checkpoint fit."""
        model = unwrap(runner.model)
        if not hasattr(model, 'curriculum_factor'):
            raise SettingError(
                f'CurriculumHook sets model.curriculum_factor, which mmmlo.CLMAE has, but a {type(model).__name__} has not; '
                'take the hook out of custom_hooks, or train a mmmlo.CLMAE'
            )
        run, saved = self._describe(runner), self._loaded
        # A run that only begins with a checkpoint's weights stands at iteration 0.
        if runner.iter and saved and saved != run:
            message = f"The checkpoint's curriculum is not this run's, and the factor would jump: it is {saved}, not {run}."
            if not self.allow_new_length:
                raise SettingError(
                    f'{message} Resume with the length and the settings of the checkpoint, or set '
                    "CurriculumHook.allow_new_length=True to go on with this run's curriculum"
                )
            print_log(f'{message} Going on with the latter (allow_new_length=True)', 'current', logging.WARNING)

    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | tuple | list | None = None) -> None:
        """Set and log the factor; a number of Python's, for which nothing waits."""
        length, unit = self._lengths(runner)
        # Not the runner's own epoch: resumed from inside of an epoch it begins that one anew, and lags behind from then on.
        factor = curriculum_factor(runner.iter // unit, length, **self._settings)
        unwrap(runner.model).curriculum_factor = factor
        runner.message_hub.update_scalar('train/curriculum_factor', factor)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the curriculum and the length of the run."""
        checkpoint['curriculum'] = self._describe(runner)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep what the checkpoint says until it is known whether the run is resumed."""
        self._loaded = checkpoint.get('curriculum')

    def _lengths(self, runner) -> tuple[int, int]:
        """Length of the run in the curriculum's unit, and iterations in that unit."""
        # From the iterations, because a multi-level loop that is resumed counts its epochs anew.
        unit = len(runner.train_dataloader) if self.by_epoch else 1
        return math.ceil(runner.max_iters / unit), unit

    def _describe(self, runner) -> dict[str, Any]:
        length, unit = self._lengths(runner)
        return dict(self._settings, by_epoch=self.by_epoch, length=length, unit=unit)
