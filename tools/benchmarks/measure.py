"""What the benchmarks share: cycles timed in turns, each variant in a process of its own, peak memory, tables and charts.

A variant is a function that builds something and returns another one, without arguments, that runs a cycle of it. It is
handed over to a child process, so it must be picklable: a function of a module, or a ``functools.partial`` of one.
"""

import importlib
import json
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch
from matplotlib.figure import Figure
from mmengine.logging import MMLogger

from mmmlo import registry  # noqa: F401  applies mmmlo.compat, which must precede mmpretrain and timm
from mmmlo.utils.tensor_memory import TensorMemory

Cycle = Callable[[], Any]
Build = Callable[[], Cycle]

LAUNCHERS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'env.sh')
COLOURS, GOAL = ('#0072B2', '#56B4E9'), '#D55E00'


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


def describe_versions(*names: str) -> str:
    """Names and versions of packages, for below a table."""
    return ', '.join(f'{name} {importlib.import_module(name).__version__}' for name in names)


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


def launcher_allocator() -> dict[str, str]:
    """The allocator settings that ``tools/env.sh`` gives to what it starts here: none where there is a GPU."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith('MALLOC_')}
    command = ['bash', '-c', f'source "{LAUNCHERS}" && tune_allocator && env']
    lines = subprocess.run(command, check=True, capture_output=True, text=True, env=clean).stdout.splitlines()
    return dict(re.findall(r'^(MALLOC_\w+)=(.*)$', '\n'.join(lines), re.MULTILINE))


class Worker:
    """A variant in a process of its own, which runs a cycle when it is told to.

    Args:
        build (Callable): Builds the variant; see the module.
        device (str): 'cpu' or 'cuda'.
        allocator (dict[str, str], optional): The ``MALLOC_`` variables of its environment. Defaults to None, those of ours.
        threads (int, optional): CPU threads. Defaults to None, what PyTorch takes.
    """

    def __init__(
        self, build: Build, device: str = 'cpu', allocator: Mapping[str, str] | None = None, threads: int | None = None
    ) -> None:
        context = multiprocessing.get_context('spawn')
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build, device, threads), daemon=True)
        with nullcontext() if allocator is None else _allocator(allocator):  # glibc reads these when a program starts
            self._process.start()
        theirs.close()
        self._ready = False

    def cycle(self) -> float:
        """Run a cycle.

        Returns:
            float: Its seconds.
        """
        self.wait()
        return self._ask('cycle')

    def peak_memory(self) -> float:
        """Peak memory so far.

        Returns:
            float: In MiB; on CPUs beyond what the process had before it built the variant, on GPUs that of tensors.
        """
        self.wait()
        return self._ask('peak')

    def tensor_memory(self) -> float:
        """Run a cycle more, and look at the tensors in it.

        Returns:
            float: In MiB, the most that were alive at a time of those that it made, see :class:`TensorMemory`. Weights and
            the optimizer's state do not count, nor does what the allocator cannot reuse.
        """
        self.wait()
        return self._ask('tensors')

    def wait(self) -> None:
        """Wait until the variant is built."""
        if not self._ready:
            self._answer()
            self._ready = True

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()

    def _ask(self, what: str) -> float:
        self._connection.send(what)
        return self._answer()

    def _answer(self) -> float:
        try:
            answer = self._connection.recv()
        except EOFError as error:
            raise RuntimeError('the process of a variant ended without a word; was there enough memory?') from error
        if isinstance(answer, str):
            raise RuntimeError(f'a variant failed in its process:\n{answer}')
        return answer


def _serve(connection: Connection, build: Build, device: str, threads: int | None) -> None:
    try:
        warnings.simplefilter('ignore')  # of what is older than today's PyTorch, in every step
        MMLogger.get_current_instance().setLevel('ERROR')  # not a line for every parameter that is initialized or not
        if threads:
            torch.set_num_threads(threads)
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
                synchronize(device)
                start = time.perf_counter()
                cycle()
                synchronize(device)
                connection.send(time.perf_counter() - start)
    except (EOFError, KeyboardInterrupt):  # the parent is done
        pass
    except Exception:
        connection.send(traceback.format_exc())


@contextmanager
def _allocator(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: value for name, value in os.environ.items() if name.startswith('MALLOC_')}
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
    """Figures of variants that ran in turns.

    Attributes:
        seconds (dict[str, list[float]]): Variant -> seconds of each cycle.
        memory (dict[str, float]): Variant -> peak memory in MiB.
        tensors (dict[str, float]): Variant -> peak memory of the tensors of a cycle in MiB.
    """

    seconds: dict[str, list[float]]
    memory: dict[str, float]
    tensors: dict[str, float]


def in_turns(
    workers: Mapping[str, Callable[[], Worker]], cycles: int, warmup: int, progress: Callable[[str], None]
) -> Times:
    """Run all variants in turns, a cycle each, so that a machine whose speed drifts slows all of them.

    Every other round goes through them backwards, so that none always follows the same one.

    Args:
        workers (Mapping[str, Callable]): Variant -> starts its worker.
        cycles (int): Cycles of each that are timed.
        warmup (int): Cycles of each before.
        progress (Callable): Is told what is done.

    Returns:
        Times: The figures.
    """
    with ExitStack() as stack:
        started = {}
        for name, start in workers.items():
            started[name] = start()
            stack.callback(started[name].close)
        for worker in started.values():
            worker.wait()
        seconds: dict[str, list[float]] = {name: [] for name in started}
        for turn in range(warmup + cycles):
            for name in sorted(started, key=list(started).index, reverse=turn % 2 == 1):
                taken = started[name].cycle()
                if turn >= warmup:
                    seconds[name].append(taken)
            progress(f'cycle {turn + 1} of {warmup + cycles}')
        memory = {name: worker.peak_memory() for name, worker in started.items()}
        return Times(seconds, memory, {name: worker.tensor_memory() for name, worker in started.items()})


@dataclass
class Row:
    """One figure over another.

    Attributes:
        name (str): What is compared.
        ours (float): Median, in ``unit``.
        other (float): Median, in ``unit``.
        unit (str): 'ms' or 'MiB'.
        ratios (list[float]): Ours over the other, of each round.
        goal (float, optional): The ratio to be reached.
    """

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
    return _memory_row(times.memory, name, ours, other, goal)


def tensor_row(times: Times, name: str, ours: str, other: str, goal: float | None = None) -> Row:
    """Compare the peak memory of the tensors that a cycle of two variants makes."""
    return _memory_row(times.tensors, name, ours, other, goal)


def _memory_row(memory: Mapping[str, float], name: str, ours: str, other: str, goal: float | None) -> Row:
    return Row(name, memory[ours], memory[other], 'MiB', [memory[ours] / memory[other]], goal)


def print_rows(rows: Sequence[Row], other: str) -> None:
    """Print a table.

    Args:
        rows (Sequence[Row]): Its rows.
        other (str): What ours is compared with, for the head.
    """
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


def write_json(path: str, content: dict) -> None:
    """Write figures to a file."""
    with open(path, 'w') as file:
        json.dump(content, file, indent=2)


def draw_rows(rows: Sequence[Row], title: str, path: str) -> Figure:
    """Draw the ratios as bars, the goals as marks; whiskers reach from quartile to quartile.

    Args:
        rows (Sequence[Row]): What to draw, from top to bottom.
        title (str): What stands above.
        path (str): Where to write the picture; its ending says the format.

    Returns:
        Figure: What was drawn.
    """
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
        axes.plot(
            [goal for _, goal in goals],
            [place for place, _ in goals],
            '|',
            color=GOAL,
            markersize=15,
            markeredgewidth=2,
            label='goal',
        )
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
