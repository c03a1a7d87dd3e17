"""Saves and ends when the system asks for it."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch.utils.data import DataLoader

from mmmlo.registry import HOOKS
from mmmlo.utils.errors import SettingError

from .safe_checkpoint_hook import SafeCheckpointHook


@HOOKS.register_module()
class StopSignalHook(Hook):
    """Saves by :class:`SafeCheckpointHook` when the iteration ends, and ends the process, after SIGTERM or SIGINT (Ctrl-C).

    The exit code is 143 after SIGTERM and 130 after SIGINT, as shells have it for processes that end by these signals. A
    second signal ends the process at once. ``--resume`` goes on from the checkpoint.

    Validation is ended at once if the checkpoint of its epoch is there, and is finished first otherwise. Several processes
    agree on it at intervals, whichever of them got the signal. Loaders' workers, which get it too if it goes to the process
    group, end with the main process.

    Args:
        interval (int): Iterations after which several processes ask each other, for which they wait. Defaults to 10.

    Raises:
        SettingError: If the interval is not positive.
    """

    # After the checkpoint hook, which may have saved this iteration already, and after all that belongs to an iteration.
    priority = 'LOWEST'

    def __init__(self, interval: int = 10) -> None:
        if interval < 1:
            raise SettingError(f'StopSignalHook.interval must be at least 1, got {interval}')
        self.interval = interval
        self._former: dict[int, Any] = {}
        self._training = False

    def before_train(self, runner) -> None:
        """Watch for signals."""
        self._signal = 0
        self._process = os.getpid()
        saver = next((hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)), None)
        if saver is None or threading.current_thread() is not threading.main_thread():
            why = 'this is not the main thread' if saver else 'default_hooks.checkpoint is no mmmlo.SafeCheckpointHook'
            print_log(f'Signals are not watched for: {why}', 'current', logging.WARNING)
            return
        self._saver = saver
        self._training = True
        for loader in _loaders(runner):
            loader.worker_init_fn = partial(_init_worker, loader.worker_init_fn)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._former[number] = signal.signal(number, self._note)

    def after_train(self, runner) -> None:
        """Watch no longer."""
        self._training = False
        while self._former:
            signal.signal(*self._former.popitem())

    def _note(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:  # a worker that was forked without being told
            return
        if self._signal:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._signal = number
        # Not by a logger, which may be at work in this moment.
        text = f'{signal.Signals(number).name}: saving at the end of the iteration; once more ends at once'
        os.write(2, f'\n{text}\n'.encode())

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None) -> None:
        """Save and end, if asked to."""
        if self._training and (get_world_size() == 1 or (runner.iter + 1) % self.interval == 0):
            self._follow(runner)

    def before_val(self, runner) -> None:
        """Save and end, if asked to at the end of an epoch, or during validation."""
        if self._training:  # not by tools/test.py
            self._follow(runner, between_epochs=True)

    def after_val_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """End, if asked to and if nothing has to be saved: the model's weights may be others during validation."""
        # Processes may have different numbers of batches here.
        if self._training and self._signal and get_world_size() == 1 and self._saver.saved_iter == runner.iter:
            self._follow(runner, between_epochs=True)

    after_val = before_val

    def _follow(self, runner, between_epochs: bool = False) -> None:
        """Save and end, if any process has been asked to."""
        number = self._signal
        if get_world_size() > 1:
            asked = torch.tensor(number)
            all_reduce(asked, op='max')
            number = int(asked)
        if not number:
            return
        saved = self._saver.save_now(runner, between_epochs)
        name, code = signal.Signals(number).name, 128 + number
        kept = f'{self._saver.last_ckpt} is saved, and --resume goes on from it' if saved else 'Nothing could be saved'
        print_log(f'{name}: {kept}. Exit code {code}', 'current', logging.INFO if saved else logging.ERROR)
        runner.visualizer.close()
        raise SystemExit(code)


def _loaders(runner) -> Iterator[DataLoader]:
    yield from getattr(runner.train_loop, 'level_loaders', {}).values()
    for loop in (runner.train_loop, runner.val_loop):
        yield from (value for value in vars(loop).values() if isinstance(value, DataLoader)) if loop else ()


def _init_worker(init: Callable[[int], Any] | None, worker_id: int) -> None:
    """Have a worker outlive signals that others than the main process send, so that this can finish its iteration.

    PyTorch would raise an error there for each worker that is killed. It ends its workers itself, by SIGTERM.
    """
    if init is not None:
        init(worker_id)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_await_main_process, args=(os.getppid(), ), daemon=True).start()


def _await_main_process(parent: int) -> None:
    """Handle the SIGTERM that is blocked in a worker: who sent it, a handler is not told."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
