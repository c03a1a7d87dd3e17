"""Parameter schedules that count a level's own optimizer steps."""

import copy

from mmmlo.utils.errors import SettingError

# Arguments of mmengine's schedulers that count steps or epochs.
_COUNTS = ('begin', 'end', 'T_max', 'step_size', 'milestones', 'periods', 'total_steps')


def level_schedules(
    param_scheduler: dict | list | None, total_steps: dict[str, int], max_epochs: int
) -> dict[str, list[dict]] | None:
    """Write out the schedules of every level in that level's own optimizer steps.

    ``end`` defaults to the level's last step, ``begin`` to its first, and ``T_max`` of a cosine to what lies between, so
    that each level's schedule ends with the run although upper levels step less often. A schedule with ``by_epoch=True``
    (mmengine's default) is given in epochs of the lowest level; with ``convert_to_iter_based=True`` it is converted to the
    level's steps, otherwise it moves at the end of each epoch.

    Args:
        param_scheduler (dict | list | None): A schedule, a list of them for all levels, or level -> either. A level that is
            left out keeps its values.
        total_steps (dict[str, int]): Level -> its optimizer steps in the whole run.
        max_epochs (int): Epochs of the lowest level in the whole run.

    Raises:
        ValueError: If a schedule is given for an unknown level.
    """
    if param_scheduler is None:
        return None
    by_level = param_scheduler
    if not isinstance(by_level, dict) or 'type' in by_level:
        by_level = dict.fromkeys(total_steps, by_level)
    if unknown := [level for level in by_level if level not in total_steps]:
        raise SettingError(f'param_scheduler has {unknown[0]!r}, but the levels are {list(total_steps)}')
    resolved = {}
    for level, steps in total_steps.items():
        schedules = by_level.get(level, [])
        schedules = [schedules] if isinstance(schedules, dict) else schedules
        resolved[level] = [_resolve(schedule, steps, max_epochs) for schedule in schedules]
    return resolved


def _resolve(schedule: dict, total_steps: int, max_epochs: int) -> dict:
    schedule = copy.deepcopy(dict(schedule))
    if schedule.get('by_epoch', True) and schedule.pop('convert_to_iter_based', False):
        factor = total_steps / max_epochs
        for name in _COUNTS:
            if isinstance(count := schedule.get(name), list | tuple):
                schedule[name] = [round(item * factor) for item in count]
            elif count is not None:
                schedule[name] = round(count * factor)
        schedule['by_epoch'] = False
    schedule.setdefault('begin', 0)
    schedule.setdefault('end', max_epochs if schedule.get('by_epoch', True) else total_steps)
    if 'CosineAnnealing' in str(schedule['type']):
        schedule.setdefault('T_max', schedule['end'] - schedule['begin'])
    return schedule
