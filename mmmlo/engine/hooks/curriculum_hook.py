"""The curriculum of CL-MAE: from masks that help the autoencoder to masks that work against it."""

from mmmlo.registry import HOOKS
from mmmlo.utils.errors import SettingError

from .schedule_hook import BaseScheduleHook

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
class CurriculumHook(BaseScheduleHook):
    """Sets and logs the ``curriculum_factor`` of :class:`mmmlo.CLMAE` before each iteration, by :func:`curriculum_factor`.

    :class:`ScheduleHook` moves other numbers, and this one by other shapes.

    Args:
        schedule (str): 'linear', 'step' or 'constant'. Defaults to 'linear'.
        by_epoch (bool): Whether the factor moves once an epoch; if not, once an iteration. Defaults to True.
        partner (float): The first factor, and that of 'constant'. Defaults to 1.
        adversary (float): The last factor. Defaults to -1.
        allow_new_length (bool): See :class:`BaseScheduleHook`. Defaults to False.

    Raises:
        SettingError: If the schedule is unknown; before training, if the model has no ``curriculum_factor``, or the
            checkpoint to resume from is of another length or curriculum.
    """

    saved_as = 'curriculum'
    owner = 'which mmmlo.CLMAE has, '
    keys = ['curriculum_factor']

    def __init__(
        self,
        schedule: str = 'linear',
        by_epoch: bool = True,
        partner: float = 1.0,
        adversary: float = -1.0,
        allow_new_length: bool = False,
    ) -> None:
        super().__init__(dict(schedule=schedule, partner=partner, adversary=adversary), by_epoch, allow_new_length)
        curriculum_factor(0, 1, **self._settings)

    def values_at(self, position: int, length: int) -> dict[str, float]:
        """Compute the factor; see :meth:`BaseScheduleHook.values_at`."""
        return dict(curriculum_factor=curriculum_factor(position, length, **self._settings))
