"""What a resumed run's checkpoint brings back and its config contradicts."""

import logging
from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmmlo.engine import BaseScheduleHook, MultiLevelOptimWrapper
from mmmlo.utils.config import read_config
from mmmlo.utils.errors import SettingError
from mmmlo.utils.text import format_list

__all__ = ['ResumeSettingsHook']

_MOST = 4  # differences of a data set that are told
_NO_SETTINGS = ('foreach', 'fused', 'capturable', 'differentiable')  # of an optimizer: they change no result

# Key, what the checkpoint has, what the config has.
_Difference = tuple[str, Any, Any]


class ResumeSettingsHook(Hook):
    """Compares the optimizers, schedules and length of a resumed run with those in the config of its checkpoint.

    Resuming brings back the checkpoint's settings of optimizers and schedules. A config that has others, or another length,
    is an error, unless one side is chosen. Data that differ are a warning.

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
        saved, config = read_config(checkpoint['meta'].get('cfg')), read_config(runner.cfg.pretty_text)
        levels = _get(config, 'train_cfg.dataloaders') or {}
        for loader in ['train_dataloader', *(f'train_cfg.dataloaders.{level}' for level in levels)]:
            for name in ('dataset', 'sampler', 'batch_size'):
                for key, before, now in [*_compare(saved, config, f'{loader}.{name}')][:_MOST]:
                    text = f'The checkpoint is of a run with {key}={before}, and this one has {now}'
                    print_log(text, 'current', logging.WARNING)
        optimizers = [*_optimizers(runner, checkpoint)]
        found = [*_differences(optimizers, saved, config)]
        for key, before, now in found:
            if key.endswith('optimizer.type') or key.startswith('the number'):
                raise SettingError(
                    f'cannot resume from {runner._load_from}: {key} is {before} in the checkpoint and {now} in the config. '
                    f'Set it back, or begin anew with its weights: load_from={runner._load_from} without --resume'
                )
        if not found:
            return
        what = format_list([f'{key} is {before} in the checkpoint and {now} in the config' for key, before, now in found])
        if self.choice is None:
            raise SettingError(
                f'resuming from {runner._load_from} with other settings: {what}. Pass --resume-settings checkpoint to go on '
                "with what the checkpoint has, or --resume-settings config for this config's settings, placed at the "
                "checkpoint's step"
            )
        print_log(f'Going on with the settings of the {self.choice}: {what}', 'current', logging.WARNING)
        if self.choice == 'config':
            for _, wrapper, groups in optimizers:
                for group, before in zip(wrapper.param_groups, groups):
                    before.update({name: value for name, value in group.items() if name != 'params'})
            # Those of the config stand at the beginning, and are moved on as soon as the loop knows where it is.
            checkpoint.pop('param_schedulers', None)
            infos = checkpoint['message_hub'].get('runtime_info', {})
            self._epoch_length = infos.get('epoch_length', len(runner.train_dataloader))
            for hook in runner.hooks:
                if isinstance(hook, BaseScheduleHook):
                    hook.allow_new_length = True

    def before_train(self, runner: Runner) -> None:
        """Move the config's schedules on to where the run stands, if these are chosen."""
        if self._epoch_length is None or not runner.param_schedulers:
            return
        schedules = runner.param_schedulers if isinstance(runner.param_schedulers, dict) else {'': runner.param_schedulers}
        for level, schedulers in schedules.items():
            _fast_forward(runner, level, schedulers, self._epoch_length)


def _optimizers(runner: Runner, checkpoint: dict) -> Iterator[tuple[str, Any, list[dict]]]:
    """Key in the config, wrapper, and parameter groups in the checkpoint of each optimizer."""
    state, wrapper = checkpoint.get('optimizer') or {}, runner.optim_wrapper
    states = {'optim_wrapper': (wrapper, state)}
    if isinstance(wrapper, MultiLevelOptimWrapper):
        states = {f'optim_wrapper.levels.{level}': (own, state['levels'].get(level, {})) for level, own in wrapper.items()}
    for key, (own, saved) in states.items():
        if 'param_groups' in saved:
            # As a wrapper's ``param_groups``: with the base settings, if it keeps some.
            yield key, own, saved['param_groups'] + [saved[name] for name in ['base_param_settings'] if saved.get(name)]


def _differences(optimizers: list, saved: dict, config: dict) -> Iterator[_Difference]:
    """What checkpoint and config have different of optimizers, schedules and length."""
    for key, wrapper, groups in optimizers:
        other = [*_compare(saved, config, f'{key}.optimizer'), *_compare(saved, config, f'{key}.paramwise_cfg')]
        other = [item for item in other if item[0].split('.')[-1] not in _NO_SETTINGS]
        yield from other
        if len(groups) != len(wrapper.param_groups):
            yield f'the number of parameter groups of {key}', len(groups), len(wrapper.param_groups)
        # Another rate of the same config comes of auto_scale_lr.
        before, now = (float(own.get('initial_lr', own['lr'])) for own in (groups[-1], wrapper.param_groups[-1]))
        if before != now and not other and _get(saved, 'param_scheduler') == _get(config, 'param_scheduler'):
            yield f'{key}.optimizer.lr', before, now
    for key in ('param_scheduler', 'train_cfg.max_epochs', 'train_cfg.max_iters'):
        yield from _compare(saved, config, key)


def _compare(saved: dict, config: dict, key: str) -> Iterator[_Difference]:
    """Where two configs differ at a dotted key or below it; without a config of the checkpoint, nowhere."""
    if saved:
        yield from _leaves(_get(saved, key), _get(config, key), key)


def _leaves(before: Any, now: Any, key: str) -> Iterator[_Difference]:
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


def _fast_forward(runner: Runner, level: str, schedulers: list, epoch_length: int) -> None:
    """Move the schedules of one optimizer as training does, because the values of some follow from those of others."""
    wrapper = runner.optim_wrapper
    for scheduler in schedulers:
        scheduler.optimizer._global_step = 0  # it has stepped, which mmengine's schedules look at
    for iteration in range(1, runner.iter + 1):
        steps = iteration
        if isinstance(wrapper, MultiLevelOptimWrapper):
            steps = min(wrapper.cadence.total_steps(iteration)[level], wrapper.step_counts[level])
        for scheduler in schedulers:
            while not scheduler.by_epoch and scheduler._global_step < steps:
                scheduler.step()
        if iteration % epoch_length == 0 and iteration // epoch_length <= runner.epoch:
            for scheduler in schedulers:
                if scheduler.by_epoch:
                    scheduler.step()
