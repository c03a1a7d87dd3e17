"""What the benchmarks share: cycles timed in turns, each variant in a process of its own, peak memory, tables and charts.

A variant is a function that builds something and returns another one, without arguments, that runs a cycle of it. It is
handed over to a child process, so it must be picklable: a function of a module, or a ``functools.partial`` of one.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch
from matplotlib.figure import Figure
from mmengine.logging import MMLogger

from mmmlo.utils.process import THREADS
from mmmlo.utils.tensor_memory import TensorMemory

Cycle = Callable[[], Any]
Build = Callable[[], Cycle]

LAUNCHERS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'env.sh')
COLOURS, GOAL = ('#0072B2', '#56B4E9'), '#D55E00'


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


def describe_device(device: str) -> str:
    """Name of the GPU, or of the processor and its number of threads."""
    if device.startswith('cuda'):
        return torch.cuda.get_device_name(device)
    names = (line.split(':')[1].strip() for line in _lines('/proc/cpuinfo') if line.startswith('model name'))
    return f'{next(names, platform.machine())}, {torch.get_num_threads()} threads'


def describe_run(args: argparse.Namespace, *packages: str) -> str:
    """Device, versions and precision, for below a table."""
    versions = [f'{name} {importlib.import_module(name).__version__}' for name in ('torch', *packages)]
    return ', '.join([describe_device(args.device), *versions, 'bfloat16 autocast' if vars(args).get('amp') else 'fp32'])


def progress(text: str) -> None:
    """Show what is done, in one line of the standard error."""
    print(f'\r{text}   ', end='', file=sys.stderr, flush=True)


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 matrices by itself; elsewhere autocast only adds conversions."""
    units = {'avx512_bf16', 'amx_bf16', 'bf16'}  # the last one is ARM's
    return any(units & set(line.split()) for line in _lines('/proc/cpuinfo') if line.startswith(('flags', 'Features')))


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.readlines()
    except OSError:  # not Linux
        return []


def peak_resident_memory() -> float:
    """Peak resident memory of this process in MiB. ``ru_maxrss`` would begin at the parent's peak."""
    return next(int(line.split()[1]) for line in _lines('/proc/self/status') if line.startswith('VmHWM')) / 1024


def launcher_settings() -> dict[str, str]:
    """What ``tools/env.sh`` sets for what it starts here: how threads wait and, where there is no GPU, the allocator."""
    command = ['bash', '-c', f'source "{LAUNCHERS}" && tune_process && env']
    with _settings({}):
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {name: value for name, value in re.findall(r'^(\w+)=(.*)$', lines, re.MULTILINE) if _is_setting(name)}


def _is_setting(name: str) -> bool:
    return name.startswith('MALLOC_') or name in THREADS


class Worker:
    """A variant in a process of its own, which runs a cycle when it is told to.

    Args:
        build (Callable): Builds the variant; see the module.
        device (str): 'cpu' or 'cuda'.
        settings (dict[str, str], optional): Of its allocator and threads. Defaults to None, those of tools/env.sh.
        threads (int, optional): CPU threads. Defaults to None, what PyTorch takes.
    """

    def __init__(
        self, build: Build, device: str = 'cpu', settings: Mapping[str, str] | None = None, threads: int | None = None
    ) -> None:
        context = multiprocessing.get_context('spawn')
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build, device, threads), daemon=True)
        with _settings(launcher_settings() if settings is None else settings):  # read when a program starts
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


def _serve(connection: Connection, build: Build, device: str, threads: int | None) -> None:
    try:
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


def time_call(call: Callable[[], Any], device: str) -> float:
    """Seconds of a call."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


@contextmanager
def _settings(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: value for name, value in os.environ.items() if _is_setting(name)}
    for name in before:
        del os.environ[name]
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]
        os.environ.update(before)


@dataclass
class Times:
    """Of variants that ran in turns: seconds of each cycle, peak memory, and that of a cycle's tensors, in MiB."""

    seconds: dict[str, list[float]]
    memory: dict[str, float]
    tensors: dict[str, float]


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
            for name in sorted(started, key=list(started).index, reverse=turn % 2 == 1):
                taken = started[name].get('cycle')
                if turn >= warmup:
                    seconds[name].append(taken)
            progress(f'{title}: {turn + 1} of {warmup + cycles}')
        print(file=sys.stderr)
        memory = {name: worker.get('peak') for name, worker in started.items()}
        return Times(seconds, memory, {name: worker.get('tensors') for name, worker in started.items()})


@dataclass
class Row:
    """One figure over another: medians in a unit, the ratios of each round, and the ratio to be reached, if there is one."""

    name: str
    ours: float
    other: float
    unit: str
    ratios: list[float]
    goal: float | None = None
    ratio: float = field(init=False)

    def __post_init__(self) -> None:
        self.ratio = statistics.median(self.ratios)

    @property
    def quartiles(self) -> tuple[float, float]:
        """tuple[float, float]: Of the ratios; half of the rounds are between them."""
        if len(self.ratios) < 2:
            return self.ratio, self.ratio
        lower, _, upper = statistics.quantiles(self.ratios, n=4, method='inclusive')
        return lower, upper


def time_row(times: Times, name: str, ours: str, other: str, goal: float | None = None) -> Row:
    """Compare the seconds of two variants that ran in turns, round by round."""
    mine, theirs = times.seconds[ours], times.seconds[other]
    medians = (1000 * statistics.median(values) for values in (mine, theirs))
    return Row(name, *medians, 'ms', [a / b for a, b in zip(mine, theirs)], goal)


def memory_row(times: Times, name: str, ours: str, other: str, goal: float | None = None) -> Row:
    """Compare the peak memory of two variants."""
    return Row(name, times.memory[ours], times.memory[other], 'MiB', [times.memory[ours] / times.memory[other]], goal)


def tensor_row(times: Times, name: str, ours: str, other: str, goal: float | None = None) -> Row:
    """Compare the peak memory of the tensors that a cycle of two variants makes."""
    return memory_row(Times({}, times.tensors, {}), name, ours, other, goal)


def print_rows(rows: Sequence[Row], other: str) -> None:
    """Print a table; ``other`` is what ours is compared with, for the head."""
    width = max(len(row.name) for row in rows) + 2
    print(f'{"":{width}}{"ours":>12}{other:>14}{"ratio":>8}{"quartiles":>15}{"goal":>9}')
    for row in rows:
        low, high = row.quartiles
        spread = f'{low:.2f}-{high:.2f}' if len(row.ratios) > 1 else ''
        goal = '' if row.goal is None else f'<= {row.goal:g}'
        reached = '' if row.goal is None else '  reached' if row.ratio <= row.goal else '  missed'
        print(
            f'{row.name:{width}}{row.ours:8.0f} {row.unit:3}{row.other:10.0f} {row.unit:3}{row.ratio:8.2f}{spread:>15}'
            f'{goal:>9}{reached}'
        )


def as_dicts(rows: Sequence[Row]) -> list[dict]:
    """The rows for JSON."""
    return [asdict(row) | dict(quartiles=row.quartiles) for row in rows]


def write_json(path: str | None, args: argparse.Namespace, content: dict) -> None:
    """Write figures, and what they were measured with, to a file, if there is one."""
    if path is not None:
        settings = dict(command=shlex.join(['python', *sys.argv]), torch=torch.__version__, arguments=vars(args))
        with open(path, 'w') as file:
            json.dump(dict(settings=settings, **content), file, indent=2)


def draw_rows(rows: Sequence[Row], title: str, path: str) -> Figure:
    """Draw the ratios as bars from top to bottom, the goals as marks; whiskers reach from quartile to quartile."""
    figure = Figure(figsize=(9.0, 0.36 * len(rows) + 1.2), layout='constrained')
    figure.suptitle(title, fontsize=10, weight='bold', parse_math=False)
    axes = figure.subplots()
    places = range(len(rows))
    low, high = zip(*(row.quartiles for row in rows))
    ratios = [row.ratio for row in rows]
    whiskers = [[ratio - end for ratio, end in zip(ratios, low)], [end - ratio for ratio, end in zip(ratios, high)]]
    colours = [COLOURS[row.unit == 'MiB'] for row in rows]
    axes.barh(places, ratios, color=colours, height=0.62)
    axes.errorbar(ratios, places, xerr=whiskers, fmt='none', ecolor='0.3', elinewidth=1, capsize=3)
    goals = [(place, row.goal) for place, row in enumerate(rows) if row.goal is not None]
    if goals:
        axes.plot(*zip(*((goal, place) for place, goal in goals)), '|', color=GOAL, markersize=15, mew=2, label='goal')
        axes.legend(fontsize=8, frameon=False)
    for place, row in enumerate(rows):
        right = max(row.quartiles[1], row.goal or 0)
        axes.annotate(f'{row.ratio:.2f}', (right, place), (5, 0), textcoords='offset points', va='center', fontsize=8)
    axes.set_yticks(places, [row.name for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color='0.5', linewidth=0.8, linestyle=':')
    axes.set_xlim(0, 1.12 * max(max(high), *(row.goal or 0 for row in rows), 1))
    axes.set_xlabel('ours over the other: time in dark, peak memory in light', fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(axis='x', alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    figure.savefig(path, dpi=150)
    return figure
