"""Logs what the model returns without waiting for the device in every iteration."""

from typing import Any

import numpy as np
import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.logging import MessageHub

from mmmlo.registry import HOOKS
from mmmlo.utils.errors import SettingError


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's ``RuntimeInfoHook``, but what the model returns is read only when it is about to be used.

    mmengine's hook reads every logged tensor in each iteration, and with a GPU each read waits until all work that was
    issued before is done. This one leaves the numbers on the device and hands them to the message hub in iterations in
    which a ``LoggerHook`` logs, at the end of an epoch and of training, before validation and before a checkpoint is
    saved. Without a ``LoggerHook``, who reads the message hub is not known, and it is kept up to date in each iteration.
    The histories are mmengine's; in the iterations between, their ends are missing.

    A model may also return objects with a method ``read()``, of numbers that are not known yet, such as the time between two
    events on a GPU. It is called once, when the number is logged, and may wait for it.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[str, Any]] = []  # keys and numbers as they came; tensors are on their devices

    def after_train_iter(
        self, runner, batch_idx: int, data_batch: dict | tuple | list | None = None, outputs: dict | None = None
    ) -> None:
        """Keep what the model returned, and hand over what is kept if it is about to be read."""
        self._pending += [(f'train/{name}', _keep(name, value)) for name, value in (outputs or {}).items()]
        loggers = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
        logs = any(self.every_n_inner_iters(batch_idx, logger.interval) for logger in loggers)
        if logs or not loggers or self.end_of_epoch(runner.train_dataloader, batch_idx):
            self._hand_over(runner.message_hub)

    def after_train_epoch(self, runner) -> None:
        """Hand over what is kept: an epoch can end before its loader does."""
        self._hand_over(runner.message_hub)

    def before_val(self, runner) -> None:
        """Hand over what is kept."""
        self._hand_over(runner.message_hub)
        super().before_val(runner)

    def after_train(self, runner) -> None:
        """Hand over what is kept."""
        self._hand_over(runner.message_hub)
        super().after_train(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Hand over what is kept, also to the checkpoint: the runner has copied the message hub already."""
        if self._pending:
            self._hand_over(runner.message_hub)
            state = runner.message_hub.state_dict()
            checkpoint['message_hub'].update(log_scalars=state['log_scalars'], resumed_keys=state['resumed_keys'])

    def _hand_over(self, hub: MessageHub) -> None:
        """Give the hub all numbers, with one transfer for each device and dtype."""
        pending, self._pending = self._pending, []
        stacks: dict[tuple, list[torch.Tensor]] = {}
        for _, value in pending:
            if isinstance(value, torch.Tensor):
                stacks.setdefault((value.device, value.dtype), []).append(value)
        numbers = {kind: iter(torch.stack(values).tolist()) for kind, values in stacks.items()}
        for key, value in pending:
            if isinstance(value, torch.Tensor):
                value = next(numbers[value.device, value.dtype])
            hub.update_scalar(key, value.read() if hasattr(value, 'read') else value)


def _keep(name: str, value: Any) -> Any:
    """Give a number to keep until it is read, for which nothing waits: a copy, because the model may write to its own."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.detach().reshape(()).clone()
    single = isinstance(value, int | float) or isinstance(value, np.ndarray | np.number) and value.size == 1
    if single or hasattr(value, 'read'):
        return value
    raise SettingError(f'the model returned {name!r} to be logged, a {type(value).__name__} that is no single number')
