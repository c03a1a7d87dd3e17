"""What the benchmarks share: cycles timed in turns, each variant in a process of its own, peak memory, and tables.

A variant is a function that builds something and returns another one, without arguments, that runs a cycle of it. It is
handed over to a child process, so it must be picklable: a function of a module, or a ``functools.partial`` of one.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from mmengine.logging import MMLogger

from mmmlo.utils.process import THREADS, keep_freed_memory
from mmmlo.utils.tensor_memory import TensorMemory

Cycle = Callable[[], Any]
Build = Callable[[], Cycle]


def prepare(args: argparse.Namespace) -> None:
    """Resolve ``args.device``, set the threads, and keep loggers silent: they have a line for every parameter."""
    warnings.simplefilter('ignore')  # of what is older than today's PyTorch, in every step
    MMLogger.get_current_instance().setLevel('ERROR')
    args.device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    if args.threads:
        torch.set_num_threads(args.threads)


def synchronize(device: str) -> None:
    """Wait for the device, so that a clock read after it is right."""
    if device.startswith('cuda'):
        torch.cuda.synchronize()


def time_call(call: Callable[[], Any], device: str) -> float:
    """Seconds of a call."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def progress(text: str) -> None:
    """Show what is done, in one line of the standard error."""
    print(f'\r{text}   ', end='', file=sys.stderr, flush=True)


def describe_run(args: argparse.Namespace, *packages: str) -> str:
    """Device, versions and precision, for below a table."""
    if args.device.startswith('cuda'):
        device = torch.cuda.get_device_name(args.device)
    else:
        names = (line.split(':')[1].strip() for line in _lines('/proc/cpuinfo') if line.startswith('model name'))
        device = f'{next(names, platform.machine())}, {torch.get_num_threads()} threads'
    versions = [f'{name} {importlib.import_module(name).__version__}' for name in ('torch', *packages)]
    return ', '.join([device, *versions, 'bfloat16 autocast' if vars(args).get('amp') else 'fp32'])


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []  # only Linux has them


def peak_resident_memory() -> float:
    """Peak resident memory of this process in MiB. ``ru_maxrss`` would begin at the parent's peak."""
    return next(int(line.split()[1]) for line in _lines('/proc/self/status') if line.startswith('VmHWM')) / 1024


class Worker:
    """A variant in a process of its own, which runs a cycle when it is told to.

    Args:
        build (Callable): Builds the variant; see the module.
        device (str): 'cpu' or 'cuda'.
        waiting (dict[str, str]): Environment variables of how threads wait. Defaults to those that every tool sets.
        keep_memory (bool): Whether glibc keeps freed memory, as in every tool. Defaults to True.
        threads (int, optional): CPU threads. Defaults to None, what PyTorch takes.
    """

    def __init__(
        self,
        build: Build,
        device: str = 'cpu',
        waiting: Mapping[str, str] = THREADS,
        keep_memory: bool = True,
        threads: int | None = None,
    ) -> None:
        context = multiprocessing.get_context('spawn')
        self._connection, theirs = context.Pipe()
        arguments = (theirs, build, device, keep_memory, threads)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        with mock.patch.dict(os.environ):  # read when a program starts
            for name in [name for name in os.environ if name.startswith('MALLOC_') or name in THREADS]:
                del os.environ[name]
            os.environ.update(waiting)
            self._process.start()
        theirs.close()

    def ask(self, what: str) -> None:
        """Let it run a 'cycle', or ask for the 'peak' memory so far or for that of the 'tensors' of one cycle more."""
        self._connection.send(what)

    def answer(self) -> float:
        """Wait for the answer, at first that the variant is built: seconds of a cycle, or MiB.

        Memory is, on CPUs, beyond what the process had before it built the variant, on GPUs that of tensors. That of a
        cycle's tensors leaves out weights, the optimizer's state, and what the allocator holds and cannot reuse.
        """
        try:
            answer = self._connection.recv()
        except EOFError as error:
            raise RuntimeError('the process of a variant ended without a word; was there enough memory?') from error
        if isinstance(answer, str):
            raise RuntimeError(f'a variant failed in its process:\n{answer}')
        return answer

    def get(self, what: str) -> float:
        """Ask and wait."""
        self.ask(what)
        return self.answer()

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(connection: Connection, build: Build, device: str, keep_memory: bool, threads: int | None) -> None:
    try:
        if keep_memory:
            keep_freed_memory()
        prepare(argparse.Namespace(device=device, threads=threads))
        before = peak_resident_memory()
        cycle = build()
        connection.send(0.0)
        while True:
            what = connection.recv()
            if what == 'tensors':
                with TensorMemory() as memory:
                    cycle()
                connection.send(memory.peak / 2**20)
            elif what == 'peak':
                on_gpu = device.startswith('cuda')
                connection.send(torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_resident_memory() - before)
            else:
                connection.send(time_call(cycle, device))
    except (EOFError, KeyboardInterrupt):  # the parent is done
        pass
    except Exception:
        connection.send(traceback.format_exc())


@dataclass
class Row:
    """One figure over another: medians in a unit, the ratio of each round, their quartiles, and a goal, if there is one."""

    name: str
    ours: float
    other: float
    unit: str
    ratios: list[float]
    quartiles: tuple[float, float]
    ratio: float
    goal: float | None


@dataclass
class Times:
    """Of variants that ran in turns: seconds of each cycle, peak memory, and that of a cycle's tensors, in MiB."""

    seconds: dict[str, list[float]]
    memory: dict[str, list[float]]
    tensors: dict[str, list[float]]

    def row(self, name: str, ours: str, other: str, goal: float | None = None, what: str = 'seconds') -> Row:
        """Compare two variants round by round, by 'seconds', 'memory' or 'tensors'."""
        mine, theirs = (getattr(self, what)[variant] for variant in (ours, other))
        scale, unit = (1000, 'ms') if what == 'seconds' else (1, 'MiB')
        ratios = [a / b for a, b in zip(mine, theirs)]
        low, ratio, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
        medians = (scale * statistics.median(values) for values in (mine, theirs))
        return Row(name, *medians, unit, ratios, (low, high), ratio, goal)


def in_turns(workers: Mapping[str, Callable[[], Worker]], cycles: int, warmup: int, title: str = 'cycle') -> Times:
    """Run all variants in turns, a cycle each, so that a machine whose speed drifts slows all of them.

    Every other round goes through them backwards, so that none always follows the same one.

    Args:
        workers (Mapping[str, Callable]): Variant -> starts its worker.
        cycles (int): Cycles of each that are timed.
        warmup (int): Cycles of each before.
        title (str): For the progress.

    Returns:
        Times: The figures.
    """
    with ExitStack() as stack:
        started = {}
        for name, start in workers.items():
            started[name] = start()
            stack.callback(started[name].close)
        for worker in started.values():
            worker.answer()
        seconds: dict[str, list[float]] = {name: [] for name in started}
        for turn in range(warmup + cycles):
            for name in list(started)[:: -1 if turn % 2 else 1]:
                taken = started[name].get('cycle')
                if turn >= warmup:
                    seconds[name].append(taken)
            progress(f'{title}: {turn + 1} of {warmup + cycles}')
        print(file=sys.stderr)
        memory = {name: [worker.get('peak')] for name, worker in started.items()}
        return Times(seconds, memory, {name: [worker.get('tensors')] for name, worker in started.items()})


def print_rows(rows: Sequence[Row], other: str) -> None:
    """Print a table; ``other`` is what ours is compared with, for the head."""
    width = max(len(row.name) for row in rows) + 2
    print(f'{"":{width}}{"ours":>12}{other:>14}{"ratio":>8}{"quartiles":>15}{"goal":>9}')
    for row in rows:
        spread = '{:.2f}-{:.2f}'.format(*row.quartiles) if len(row.ratios) > 1 else ''
        goal = '' if row.goal is None else f'<= {row.goal:g}'
        reached = '' if row.goal is None else '  reached' if row.ratio <= row.goal else '  missed'
        print(
            f'{row.name:{width}}{row.ours:8.0f} {row.unit:3}{row.other:10.0f} {row.unit:3}{row.ratio:8.2f}{spread:>15}'
            f'{goal:>9}{reached}'
        )


def write_json(path: str | None, args: argparse.Namespace, content: dict) -> None:
    """Write figures, and what they were measured with, to a file, if there is one."""
    if path is not None:
        settings = dict(command=shlex.join(['python', *sys.argv]), torch=torch.__version__, arguments=vars(args))
        with open(path, 'w') as file:
            json.dump(dict(settings=settings, **content), file, indent=2)
