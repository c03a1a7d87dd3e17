"""Logs what the model returns without waiting for the device in every iteration."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.logging import HistoryBuffer, MessageHub

from mmmlo.registry import HOOKS
from mmmlo.utils.errors import SettingError


@runtime_checkable
class Measurement(Protocol):
    """A number to log that is not known yet, such as the time between two events on a GPU."""

    def read(self) -> float:
        """The number; called once, when it is logged, and may wait for it."""


class _Pending:
    """Numbers in the order in which they came, those in tensors left on their devices."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.values: list[Any] = []  # None where the number is in a stack
        # Device and dtype -> places in `values`, and the numbers for them, a stack an iteration.
        self.stacks: dict[tuple[torch.device, torch.dtype], tuple[list[int], list[torch.Tensor]]] = {}

    def add(self, outputs: dict[str, Any]) -> None:
        """Keep the numbers of an iteration.

        A stack is a copy, for which nothing waits. The tensors themselves would not do: the model may write to them
        before they are read, and a view would keep all of its base.
        """
        tensors: dict[tuple[torch.device, torch.dtype], tuple[list[int], list[torch.Tensor]]] = {}
        for key, value in outputs.items():
            number = None
            if isinstance(value, torch.Tensor) and value.numel() == 1:
                places, scalars = tensors.setdefault((value.device, value.dtype), ([], []))
                places.append(len(self.values))
                scalars.append(value.detach().reshape(()))
            elif isinstance(value, np.ndarray | np.number) and value.size == 1:
                number = value.item()
            elif isinstance(value, int | float | Measurement):
                number = value
            else:
                raise SettingError(
                    f'the model returned {key!r} to be logged, a {type(value).__name__} of shape '
                    f'{tuple(getattr(value, "shape", ()))}; only single numbers can be logged'
                )
            self.keys.append(key)
            self.values.append(number)
        for kind, (places, scalars) in tensors.items():
            all_places, stacks = self.stacks.setdefault(kind, ([], []))
            all_places.extend(places)
            stacks.append(torch.stack(scalars))

    def read(self) -> list[tuple[str, float]]:
        """All keys and numbers, with one transfer for each device and dtype."""
        values = list(self.values)
        for places, stacks in self.stacks.values():
            for place, number in zip(places, torch.cat(stacks).tolist()):
                values[place] = number
        return [(key, value.read() if isinstance(value, Measurement) else value) for key, value in zip(self.keys, values)]


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's ``RuntimeInfoHook``, but what the model returns is read only when it is about to be used.

    mmengine's hook reads every logged tensor in each iteration, and with a GPU each read waits until all work that was
    issued before is done. This one leaves the numbers on the device and hands them to the message hub in iterations in
    which a ``LoggerHook`` logs, at the end of an epoch and of training, before validation and before a checkpoint is
    saved. Without a ``LoggerHook``, who reads the message hub is not known, and it is kept up to date in each iteration.
    The histories are mmengine's; in the iterations between, their ends are missing.

    Besides numbers and tensors, a model may return objects with a method ``read()``, see :class:`Measurement`.

    Put it in a config as ``default_hooks=dict(runtime_info=dict(type='mmmlo.DeferredRuntimeInfoHook'))``.
    """

    def __init__(self) -> None:
        self._pending = _Pending()

    def after_train_iter(
        self, runner, batch_idx: int, data_batch: dict | tuple | list | None = None, outputs: dict | None = None
    ) -> None:
        """Keep what the model returned, and hand over what is kept if it is about to be read."""
        if outputs:
            named = {f'train/{key}': value for key, value in outputs.items()}
            self._pending.add(named)
            for key in named:
                # Logs show the keys in the order in which they came. An empty array of bool takes the type of whatever is
                # appended to it, as if the history had begun with that.
                if key not in runner.message_hub.log_scalars:
                    runner.message_hub.log_scalars[key] = HistoryBuffer(np.empty(0, bool), np.empty(0, bool))
        if self._is_read_now(runner, batch_idx):
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
        if self._pending.keys:
            self._hand_over(runner.message_hub)
            state = runner.message_hub.state_dict()
            checkpoint['message_hub'].update(log_scalars=state['log_scalars'], resumed_keys=state['resumed_keys'])

    def _is_read_now(self, runner, batch_idx: int) -> bool:
        loggers = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
        return (
            not loggers
            or any(self.every_n_inner_iters(batch_idx, logger.interval) for logger in loggers)
            or self.end_of_epoch(runner.train_dataloader, batch_idx)
        )

    def _hand_over(self, hub: MessageHub) -> None:
        pending, self._pending = self._pending, _Pending()
        for key, value in pending.read():
            hub.update_scalar(key, value)
