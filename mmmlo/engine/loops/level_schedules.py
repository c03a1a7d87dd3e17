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
        param_scheduler (dict | list | None): A schedule, a list of them for all levels, or level -> either.
        total_steps (dict[str, int]): Level -> its optimizer steps in the whole run.
        max_epochs (int): Epochs of the lowest level in the whole run.

    Returns:
        dict[str, list[dict]] | None: Level -> its schedules; an empty list where a level's values stay as they are.

    Raises:
        ValueError: If a schedule is given for an unknown level.
    """
    if param_scheduler is None:
        return None
    if isinstance(param_scheduler, dict) and 'type' not in param_scheduler:
        unknown = [level for level in param_scheduler if level not in total_steps]
        if unknown:
            raise SettingError(f'param_scheduler has {unknown[0]!r}, but the levels are {list(total_steps)}')
        by_level = {level: param_scheduler.get(level, []) for level in total_steps}
    else:
        by_level = dict.fromkeys(total_steps, param_scheduler)
    resolved = {}
    for level, schedules in by_level.items():
        schedules = [schedules] if isinstance(schedules, dict) else schedules
        resolved[level] = [_resolve(schedule, total_steps[level], max_epochs) for schedule in schedules]
    return resolved


def _resolve(schedule: dict, total_steps: int, max_epochs: int) -> dict:
    schedule = copy.deepcopy(dict(schedule))
    total = max_epochs if schedule.get('by_epoch', True) else total_steps
    if schedule.get('by_epoch', True) and schedule.pop('convert_to_iter_based', False):
        for name in _COUNTS:
            if name in schedule:
                schedule[name] = _scale(schedule[name], total_steps / max_epochs)
        schedule['by_epoch'] = False
        total = total_steps
    schedule.setdefault('begin', 0)
    schedule.setdefault('end', total)
    if 'CosineAnnealing' in str(schedule['type']):
        schedule.setdefault('T_max', schedule['end'] - schedule['begin'])
    return schedule


def _scale(count: int | list, factor: float) -> int | list:
    if isinstance(count, int | float):
        return round(count * factor)
    return [round(item * factor) for item in count]
