"""Leaves out steps whose loss or gradient is not finite, and stops a run that has too many of them."""

import logging
import os.path as osp
from collections.abc import Iterator, Mapping
from functools import partial
from textwrap import shorten
from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook, LoggerHook
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapperDict
from mmengine.runner import find_latest_checkpoint

from mmmlo.registry import HOOKS
from mmmlo.utils.errors import SettingError
from mmmlo.utils.modules import unwrap
from mmmlo.utils.text import describe_error
from mmmlo.utils.whole_file import replace_whole

from ..non_finite import FiniteSteps, NonFiniteError, random_state
from ..optim_wrappers import BFloat16OptimWrapper, MultiLevelOptimWrapper
from .schedule_hook import BaseScheduleHook


@HOOKS.register_module()
class NonFiniteGuardHook(Hook):
    """Leaves out each step whose loss or gradient is not finite, names its images, and stops after too many in a row.

    A step that is left out changes nothing: no parameter, no momentum, no weight decay. It counts as a step for schedules.
    In a run of several levels each :class:`mmmlo.engine.Level` leaves out its own, with this hook or without; with any other
    optimizer wrapper, also in configs of mmseg and mmdet, this hook does, by the gradient. A fused optimizer of PyTorch
    leaves a step out on the GPU: nothing waits, and this hook reads the counts at the logging interval. With any other one
    each step waits for the GPU once, as mmengine's own clipping does, and the counts are read in each iteration.

    The run stops with the weights of before the first of these steps, and buffers of after it, and writes to the work dir
    ``non_finite_<level>_iter_<n>.pth``, from which ``tools/analysis_tools/replay_batch.py`` runs the step again.

    Args:
        max_in_a_row (int): Steps of one level, left out in a row, after which the run stops, also where it was resumed in
            between. Defaults to 10.

    Raises:
        SettingError: If ``max_in_a_row`` is not positive.
        NonFiniteError: While training, after that many.
    """

    # Before the checkpoint is saved, and before what is logged of the iteration.
    priority = 'ABOVE_NORMAL'

    def __init__(self, max_in_a_row: int = 10) -> None:
        if max_in_a_row < 1:
            raise SettingError(f'NonFiniteGuardHook.max_in_a_row must be at least 1, got {max_in_a_row}')
        self.max_in_a_row = max_in_a_row
        self._handles: list[Any] = []
        self._loaded: dict[str, tuple[int, int]] = {}

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add how many steps were left out; a multi-level wrapper has that in a state of its own."""
        if not self._multi:
            checkpoint['non_finite_guard'] = {name: guard.read() for name, guard in self._guards.items()}

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Go on counting in a run that is resumed."""
        if runner._resume:
            self._loaded = checkpoint.get('non_finite_guard', {})

    def before_train(self, runner) -> None:
        """Watch the optimizers."""
        model, wrapper = unwrap(runner.model), runner.optim_wrapper
        self._device = next(model.parameters()).device
        self._multi = isinstance(wrapper, MultiLevelOptimWrapper)
        self._interval = max([hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)], default=1)
        if self._multi:
            self._guards = {level: wrapper.level(level).guard for level in wrapper.levels}
        else:
            wrappers = dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {'': wrapper}
            self._guards = {name: FiniteSteps(self._device) for name in wrappers}
            for name, own in wrappers.items():
                guard = self._guards[name]
                guard.load(*self._loaded.get(name, (0, 0)))
                before = partial(self._before_step, guard, isinstance(own, AmpOptimWrapper))
                self._handles.append(own.optimizer.register_step_pre_hook(before))
                self._handles.append(own.optimizer.register_step_post_hook(partial(_after_step, guard)))
        self._known = {name: guard.read()[0] for name, guard in self._guards.items()}

    def after_train(self, runner) -> None:
        """Watch no longer."""
        while self._handles:
            self._handles.pop().remove()

    def left_out(self) -> int:
        """Count the steps that were left out in the run, of all levels."""
        return sum(guard.read()[0] for guard in self._guards.values())

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        """Remember where the random generators stand."""
        if not self._multi:
            self._random, self._stepped = random_state(self._device), False

    def _before_step(self, guard: FiniteSteps, scaled: bool, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._stepped = True
        gradients = [p.grad for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
        if gradients:
            norms = torch.stack([norm.to(self._device) for norm in torch._foreach_norm(gradients)])
            guard.before_step(optimizer, norms, scaled)

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None) -> None:
        """Tell of the steps that were left out since the counts were last read.

        Raises:
            NonFiniteError: There were too many in a row.
        """
        wrapper = runner.optim_wrapper
        if not self._multi and isinstance(wrapper, AmpOptimWrapper) and wrapper.should_update() and not self._stepped:
            self._guards[''].add()  # left out by the loss scaler, which does not call the optimizer then
        free = self._device.type == 'cpu' or any(guard.waits for guard in self._guards.values())
        if not free and not self.every_n_train_iters(runner, self._interval):
            return
        for level, guard in self._guards.items():
            count, in_a_row = guard.read()
            if count <= self._known[level]:
                continue
            self._known[level] = count
            runner.message_hub.update_scalar(f'train/{level + "/" if level else ""}skips', count)
            batches = data_batch if self._multi else {level: [data_batch]}
            what = f'iteration {runner.iter + 1}: a loss or gradient{f" of level {level!r}" if level else ""} is not finite'
            images = set()
            if in_a_row:  # else they are those of an iteration before
                images = {name for batch in batches.get(level, ()) for name in _images(batch)}
            names = shorten(', '.join(sorted(images)) or 'unknown', 600, placeholder=' and more')
            print_log(
                f'{what}, and the step is left out: {in_a_row} in a row, {count} in the run. Images: {names}',
                'current',
                logging.WARNING,
            )
            if in_a_row >= self.max_in_a_row:
                self._stop(runner, f'{what}, {in_a_row} times in a row', level, batches)

    def _stop(self, runner, what: str, level: str, batches: Mapping[str, Any]) -> None:
        last = find_latest_checkpoint(runner.work_dir)
        kept = f'The last checkpoint is {last}' if last else 'There is no checkpoint yet'
        text = f'{what}. The weights are still those of before. {kept}'
        rank = f'_rank_{get_rank()}' if get_world_size() > 1 else ''
        name = f'non_finite_{f"{level}_" if level else ""}iter_{runner.iter + 1}{rank}.pth'
        path = osp.join(runner.work_dir, name)
        try:
            with replace_whole(path) as temporary:
                torch.save(self._collect(runner, level, batches), temporary)
            text += f'. To run this step again: python tools/analysis_tools/replay_batch.py {path}'
        except (OSError, RuntimeError) as error:  # PyTorch has the latter for a full disk
            text += f'. {path} could not be written: {describe_error(error)}'
        raise NonFiniteError(text)

    def _collect(self, runner, level: str, batches: Mapping[str, Any]) -> dict[str, Any]:
        wrapper, model = runner.optim_wrapper, unwrap(runner.model)
        own = wrapper[level] if isinstance(wrapper, OptimWrapperDict) else wrapper
        amp = 'bfloat16' if isinstance(own, BFloat16OptimWrapper) else None
        if isinstance(own, AmpOptimWrapper):
            amp = str(own.cast_dtype or torch.float16).removeprefix('torch.')
        return dict(
            non_finite=1,  # of this format
            level=level,
            iteration=runner.iter + 1,
            batches=dict(batches),
            random_state=wrapper.level(level).random_state if self._multi else self._random,
            config=runner.cfg.pretty_text,
            state_dict={name: value.cpu() for name, value in model.state_dict().items()},
            scheduled=[hook.values(runner) for hook in runner.hooks if isinstance(hook, BaseScheduleHook)],
            amp=amp,
        )


def _after_step(guard: FiniteSteps, optimizer: torch.optim.Optimizer, *_: Any) -> None:
    guard.after_step(optimizer)


def _images(batch: Any) -> Iterator[str]:
    """What the images of a batch are called."""
    samples = batch.get('data_samples') if isinstance(batch, Mapping) else None
    for sample in samples if isinstance(samples, list | tuple) else ():
        path, index = sample.get('img_path'), sample.get('sample_idx')
        if path or index is not None:
            yield str(path or f'sample {index}')
