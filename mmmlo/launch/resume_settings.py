"""What a resumed run's checkpoint brings back and its config contradicts."""

import ast
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmmlo.engine import CurriculumHook, MultiLevelOptimWrapper
from mmmlo.utils.errors import SettingError

__all__ = ['ResumeSettingsHook']

_SCHEDULE_COUNTS = ('begin', 'end', 'T_max', 'step_size', 'milestones', 'periods', 'cumulative_periods', 'total_iters')
# Of a schedule: what moves, and the optimizer's values, which are compared as such. Of a group: what changes no result.
_MOVING = ('_global_step', 'last_step', '_last_value', 'base_values', 'verbose') + (
    'best', 'num_bad_epochs', 'cooldown_counter'  # of ReduceOnPlateau
)
_NO_SETTINGS = ('params', 'param_names', 'foreach', 'fused', 'capturable', 'differentiable')
_SHOWN = 4

# Key, what the checkpoint has, what the config has.
_Difference = tuple[str, Any, Any]


class ResumeSettingsHook(Hook):
    """Compares a resumed run's optimizers and schedules, as they are built, with those of its checkpoint.

    Resuming brings back the checkpoint's learning rates, weight decays and other settings of optimizers, and the schedules
    with their ends. Where the config has others, or the run is longer now than its schedules, that is an error, unless one
    side is chosen. Data that differ are a warning. A config that does not differ resumes as without this hook.

    Args:
        choice (str, optional): 'checkpoint' to go on with what the checkpoint has; 'config' to take the optimizers' settings
            and the schedules of the config, each of these moved on to where the run stands, and the curriculum of CL-MAE.

    Raises:
        SettingError: When the checkpoint is loaded: settings differ and no side is chosen, or the state of the optimizer is
            that of another type or of other groups of parameters.
    """

    def __init__(self, choice: str | None = None) -> None:
        self.choice = choice
        self._epoch_length: int | None = None  # of the checkpoint's run, where its schedules are to be placed anew

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare, and take the config's settings into the checkpoint if these are chosen."""
        if not runner._resume:
            return
        saved = _read_config(checkpoint['meta'].get('cfg'))
        config = runner.cfg.to_dict()
        for key, before, now in _data_differences(saved, config):
            text = f'The checkpoint is of a run with {key}={before}, and this one has {now}'
            print_log(text, 'current', logging.WARNING)
        self._check_optimizers(runner, checkpoint, saved, config)
        infos = checkpoint['message_hub'].get('runtime_info', {})
        found = [*_optimizer_differences(runner, checkpoint)]
        schedules = [*_schedule_differences(runner, checkpoint)]
        lengths = [
            (f'train_cfg.{key}', saved['train_cfg'].get(key), config['train_cfg'].get(key))
            for key in ('max_epochs', 'max_iters')
            if saved.get('train_cfg') and saved['train_cfg'].get(key) != config['train_cfg'].get(key)
        ]
        same = not lengths and saved.get('param_scheduler') == config.get('param_scheduler')
        if same and infos.get('epoch_length') not in (None, len(runner.train_dataloader)) and self.choice is None:
            # Another batch or amount of data makes other counts of the same config, of which the loop warns.
            schedules = [item for item in schedules if item[0].split('.')[-1] not in _SCHEDULE_COUNTS]
        found += schedules
        ended = '' if found else _describe_ended(runner, infos)
        if not found and not ended:
            for key, before, now in lengths:
                print_log(f'{key} of the resumed run was {before}, and is {now} now', 'current')
            return
        what = '; '.join(
            f'{key} is {before} in the checkpoint and {now} in the config' for key, before, now in found[:_SHOWN]
        )
        what += f'; {len(found) - _SHOWN} more' if len(found) > _SHOWN else ''
        length = ''.join(f' ({key} was {before} and is {now})' for key, before, now in lengths)
        if self.choice is None:
            raise SettingError(
                f'resuming from {runner._load_from} with other settings{length}: {what}{ended}. Pass --resume-settings '
                "checkpoint to go on with what the checkpoint has, or --resume-settings config for this config's settings, "
                f"placed at the checkpoint's step{'; set their end there first' if ended else ''}"
            )
        print_log(f'Going on with the settings of the {self.choice}{length}: {what}{ended}', 'current', logging.WARNING)
        if self.choice == 'config':
            for _, wrapper, state in _optimizers(runner, checkpoint):
                for group, before in zip(wrapper.param_groups, _groups(state)):
                    before.update({name: value for name, value in group.items() if name != 'params'})
            # Those of the config stand at the beginning, and are moved on as soon as the loop knows where it is.
            checkpoint.pop('param_schedulers', None)
            self._epoch_length = infos.get('epoch_length', len(runner.train_dataloader))
            for hook in runner.hooks:
                if isinstance(hook, CurriculumHook):
                    hook.allow_new_length = True

    def before_train(self, runner: Runner) -> None:
        """Move the config's schedules on to where the run stands, if these are chosen."""
        if self._epoch_length is None:
            return
        for level, schedulers in _schedulers(runner):
            _fast_forward(schedulers, _steps_at(runner, level), runner.iter, runner.epoch, self._epoch_length)

    @staticmethod
    def _check_optimizers(runner: Runner, checkpoint: dict, saved: dict, config: dict) -> None:
        """Stop where no choice could help: states that do not belong to the optimizers."""
        for key, wrapper, state in _optimizers(runner, checkpoint):
            types = [_get(source, f'{key}.type') for source in (saved, config)]
            groups = [len(_groups(state)), len(wrapper.param_groups)]
            other = f'{key}.type' if types[0] and types[0] != types[1] else f'the number of parameter groups of {key}'
            before, now = types if other == f'{key}.type' else groups
            if before != now:
                raise SettingError(
                    f'cannot resume from {runner._load_from}: {other} is {before} in the checkpoint and {now} in the '
                    f'config. Set it back, or begin anew with its weights: load_from={runner._load_from} without --resume'
                )


def _optimizers(runner: Runner, checkpoint: dict) -> Iterator[tuple[str, Any, dict]]:
    """Key in the config, wrapper, and state in the checkpoint of each optimizer."""
    state = checkpoint.get('optimizer') or {}
    if not isinstance(runner.optim_wrapper, MultiLevelOptimWrapper):
        if 'param_groups' in state:
            yield 'optim_wrapper.optimizer', runner.optim_wrapper, state
        return
    for level, wrapper in runner.optim_wrapper.items():
        if level in state.get('levels', {}):
            yield f'optim_wrapper.levels.{level}.optimizer', wrapper, state['levels'][level]


def _groups(state: dict) -> list[dict]:
    """The groups of an optimizer's state, as a wrapper's ``param_groups``: with the base settings, if it keeps some."""
    base = state.get('base_param_settings')
    return state['param_groups'] + ([base] if base is not None else [])


def _optimizer_differences(runner: Runner, checkpoint: dict) -> Iterator[_Difference]:
    for key, wrapper, state in _optimizers(runner, checkpoint):
        found: dict[str, _Difference] = {}
        # The last group has the base settings, without the factors of single parameters.
        for group, before in reversed([*zip(wrapper.param_groups, _groups(state))]):
            scheduled = {name.removeprefix('initial_') for name in {*group, *before} if name.startswith('initial_')}
            if 'momentum' in scheduled:  # Adam's is in its betas
                scheduled.add('betas')
            for name in set(group) & set(before) - scheduled - {*_NO_SETTINGS}:
                old, new = _plain(before[name]), _plain(group[name])
                name = name.removeprefix('initial_')
                if old != new:
                    found.setdefault(name, (f'{key}.{name}', old, new))
        yield from (found[name] for name in sorted(found))


def _schedulers(runner: Runner) -> list[tuple[str | None, list]]:
    """The level, None if there is but one optimizer, and its schedules."""
    schedulers, wrapper = runner.param_schedulers or [], runner.optim_wrapper
    if not schedulers and isinstance(wrapper, MultiLevelOptimWrapper):
        return [(level, []) for level in wrapper.levels]
    return [*schedulers.items()] if isinstance(schedulers, dict) else [(None, schedulers)]


def _schedule_differences(runner: Runner, checkpoint: dict) -> Iterator[_Difference]:
    saved = checkpoint.get('param_schedulers') or []
    for level, schedulers in _schedulers(runner):
        states = saved.get(level, []) if isinstance(saved, dict) else saved
        key = 'param_scheduler' if level is None else f'param_scheduler.{level}'
        if len(states) != len(schedulers):
            yield f'number of schedules of {key}', len(states), len(schedulers)
        for i, (scheduler, before) in enumerate(zip(schedulers, states)):
            now = scheduler.state_dict()
            if set(now) != set(before):
                before_names, names = (sorted(set(a) - set(b)) for a, b in ((before, now), (now, before)))
                yield f'{key}.{i}.type', f'one with {before_names}', f'{type(scheduler).__name__} with {names}'
                continue
            for name, value in now.items():
                if name not in _MOVING and not callable(value) and _plain(value) != _plain(before[name]):
                    # The config may count them in epochs.
                    unit = (' epochs' if scheduler.by_epoch else ' steps') if name in _SCHEDULE_COUNTS else ''
                    yield f'{key}.{i}.{name}', f'{_plain(before[name])}{unit}', f'{_plain(value)}{unit}'


def _describe_ended(runner: Runner, infos: dict) -> str:
    """Say which schedules ended with the run of the checkpoint, though the run is longer now."""
    if infos.get('max_iters') is None:
        return ''
    for level, schedulers in _schedulers(runner):
        steps_at, key = _steps_at(runner, level, limit=False), 'param_scheduler' + (f'.{level}' if level else '')
        steps = dict(unit='steps', before=steps_at(infos['max_iters']), now=steps_at(runner.max_iters))
        epochs = dict(unit='epochs', before=infos['max_epochs'], now=runner.max_epochs)
        for name in {scheduler.param_name for scheduler in schedulers}:
            ends = [(s.end, epochs if s.by_epoch else steps) for s in schedulers if s.param_name == name]
            for end, run in ends:
                # Others may go on, or take over from those that ended in time.
                if run['before'] <= end < run['now'] and all(other < length['now'] for other, length in ends):
                    return (
                        f'the schedule of {name} in {key} ends after {end} {run["unit"]}, and the run has {run["now"]} now '
                        f'(it had {run["before"]})'
                    )
    return ''


def _steps_at(runner: Runner, level: str | None, limit: bool = True) -> Callable[[int], int]:
    """How often the schedules by iterations have moved after so many of these; at most as often as the optimizer so far."""
    wrapper = runner.optim_wrapper
    if level is None or not isinstance(wrapper, MultiLevelOptimWrapper):
        return lambda iterations: iterations
    most = wrapper.step_counts[level] if limit else sys.maxsize
    return lambda iterations: min(wrapper.cadence.total_steps(iterations)[level], most)


def _fast_forward(schedulers: list, steps_at: Callable[[int], int], iterations: int, epochs: int, epoch_length: int) -> None:
    """Move schedules as training does, because the values of some follow from those of others.

    Args:
        schedulers (list): The schedules of one optimizer, which stand at its beginning.
        steps_at (Callable): Iterations so far -> steps of the schedules by iterations.
        iterations (int): Iterations so far.
        epochs (int): Epochs so far.
        epoch_length (int): Iterations of an epoch.
    """
    for scheduler in schedulers:
        scheduler.optimizer._global_step = 0  # it has stepped, which mmengine's schedules look at
    for iteration in range(1, iterations + 1):
        for scheduler in schedulers:
            while not scheduler.by_epoch and scheduler._global_step < steps_at(iteration):
                scheduler.step()
        if iteration % epoch_length == 0 and iteration // epoch_length <= epochs:
            for scheduler in schedulers:
                if scheduler.by_epoch:
                    scheduler.step()


def _data_differences(saved: dict, config: dict) -> Iterator[_Difference]:
    """Data sets, samplers and batch sizes."""
    levels = _get(config, 'train_cfg.dataloaders') or {}
    for key in ['train_dataloader', *(f'train_cfg.dataloaders.{level}' for level in levels)]:
        before, now = _get(saved, key), _get(config, key)
        if not isinstance(before, dict) or not isinstance(now, dict):
            continue
        for name in ('dataset', 'sampler', 'batch_size'):
            yield from [*_leaves(before.get(name), now.get(name), f'{key}.{name}')][:_SHOWN]


def _leaves(before: Any, now: Any, key: str) -> Iterator[_Difference]:
    """Where two nested settings differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in {**before, **now}:
            yield from _leaves(before.get(name), now.get(name), f'{key}.{name}')
    elif isinstance(before, list | tuple) and isinstance(now, list | tuple) and len(before) == len(now):
        for i, pair in enumerate(zip(before, now)):
            yield from _leaves(*pair, f'{key}.{i}')
    elif before != now:
        yield key, before, now


def _get(config: Any, key: str) -> Any:
    """The value of a dotted key; None if it is not there."""
    for name in key.split('.'):
        config = config.get(name) if isinstance(config, dict) else None
    return config


def _plain(value: Any) -> Any:
    """A setting as it is compared and shown: a number for a tensor, a list for a tuple."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, Counter):  # milestones
        return sorted(value.elements())
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _read_config(text: Any) -> dict[str, Any]:
    """The settings in mmengine's text of a config, which is parsed and not run; empty if there is none."""
    try:
        nodes = ast.parse(text if isinstance(text, str) else '').body
    except (SyntaxError, ValueError):
        return {}
    return {ast.unparse(node.targets[0]): _evaluate(node.value) for node in nodes if isinstance(node, ast.Assign)}


def _evaluate(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'dict':
        return {str(word.arg): _evaluate(word.value) for word in node.keywords}
    if isinstance(node, ast.Dict):
        return {ast.literal_eval(key): _evaluate(value) for key, value in zip(node.keys, node.values) if key}
    if isinstance(node, ast.List | ast.Tuple):
        items = [_evaluate(item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
