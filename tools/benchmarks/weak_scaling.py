#!/usr/bin/env python
"""Weak scaling over processes on CPUs, what a cycle sends, and what that costs on more GPUs, by calculation.

    python tools/benchmarks/weak_scaling.py configs/mlo_mae/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py \\
        [--processes 2] [--batch-size 64] [--cfg-options KEY=VALUE ...] [--json scaling.json]

Every process has one thread and trains on a batch of its own size, by gloo on this machine. Three settings run in turns, a
cycle each:

- ``one process``;
- ``several, apart``: as many processes at once that send nothing: what they lose, they lose to the shared caches and memory;
- ``several``: the same with gradients and vectors averaged. What it takes longer than ``apart`` is communication.

The second table is arithmetic, not a measurement: bytes that each process hands to an all-reduce in a cycle, by level, and
for clusters of ``--gpus`` the time of a ring, ``2 (n - 1) / n * bytes / bandwidth``, beside ``--cycle-seconds`` of work.
Gradients of a level that moves by its own loss travel while the backward pass runs; a hypergradient and its vectors are
waited for. The efficiency is given with and without that overlap. ``--bandwidth`` is that of one GPU's slowest link, up to
``--gpus-per-node`` GPUs that of ``--node-bandwidth``.
"""

import argparse
import multiprocessing
import os
import os.path as osp
import statistics
import sys
import tempfile
import time
from typing import Any

HERE = osp.dirname(osp.abspath(__file__))
sys.path[:0] = [HERE, osp.dirname(osp.dirname(HERE))]

import torch  # noqa: E402
from measure import describe_versions, write_json  # noqa: E402
from mmengine.config import DictAction  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402
from profile_cycle import Training  # noqa: E402

from mmmlo.launch.config import load_config  # noqa: E402

ALONE, APART, TOGETHER = 'one process', 'several, apart', 'several'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='a pretraining config of this project')
    parser.add_argument('--processes', type=int, default=2, help='processes, each of one thread')
    parser.add_argument('--batch-size', type=int, default=64, help='images a batch and process, on every level')
    parser.add_argument('--cycles', type=int, default=7, help='cycles that are timed')
    parser.add_argument('--gpus', type=int, nargs='+', default=[8, 16, 32, 64], help='numbers of GPUs to calculate for')
    parser.add_argument('--gpus-per-node', type=int, default=8, help='GPUs of one machine')
    parser.add_argument('--node-bandwidth', type=float, default=300.0, help='GB/s of a GPU within a machine')
    parser.add_argument('--bandwidth', type=float, default=40.0, help='GB/s of a GPU between machines')
    parser.add_argument('--cycle-seconds', type=float, default=0.5, help='seconds of work of a cycle on one GPU')
    parser.add_argument('--arithmetic-only', action='store_true', help='build the model, train nothing')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings, as in a.b=1 c="[x,y]"')
    parser.add_argument('--json', metavar='FILE', help='write all figures here')
    args = parser.parse_args()
    for name, least in (('processes', 2), ('cycles', 1), ('batch_size', 1)):
        if getattr(args, name) < least:
            parser.exit(2, f'error: --{name.replace("_", "-")} must be at least {least}, got {getattr(args, name)}\n')
    return args


def work(connection: Any, args: argparse.Namespace, rank: int, store: str | None) -> None:
    """A process: one cycle for each word that it gets."""
    MMLogger.get_current_instance().setLevel('ERROR')
    torch.set_num_threads(1)
    if store is not None:
        torch.distributed.init_process_group('gloo', f'file://{store}', rank=rank, world_size=args.processes)
    training = Training(load_config(args.config, args.cfg_options), args.batch_size, 'cpu', 0)
    connection.send('ready')
    while connection.recv():
        start = time.perf_counter()
        training.cycle()
        connection.send(time.perf_counter() - start)


class Team:
    """Processes that run a cycle at the same time.

    Args:
        args (argparse.Namespace): The command line.
        count (int): How many.
        store (str, optional): File by which they meet. Defaults to None: they send each other nothing.
    """

    def __init__(self, args: argparse.Namespace, count: int, store: str | None = None) -> None:
        context = multiprocessing.get_context('spawn')
        pipes = [context.Pipe() for _ in range(count)]
        self._connections = [ours for ours, _ in pipes]
        for rank, (_, theirs) in enumerate(pipes):
            context.Process(target=work, args=(theirs, args, rank, store), daemon=True).start()
            theirs.close()
        self._answers()

    def cycle(self) -> float:
        """Seconds of the slowest process."""
        for connection in self._connections:
            connection.send(True)
        return max(self._answers())

    def close(self) -> None:
        """End the processes."""
        for connection in self._connections:
            connection.send(False)

    def _answers(self) -> list[Any]:
        try:
            return [connection.recv() for connection in self._connections]
        except EOFError as error:
            raise SystemExit('error: a process ended without a word; its own error stands above') from error


def measure(args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each cycle, by setting."""
    with tempfile.TemporaryDirectory() as folder:
        teams = {
            ALONE: Team(args, 1),
            APART: Team(args, args.processes),
            TOGETHER: Team(args, args.processes, osp.join(folder, 'store')),
        }
        seconds: dict[str, list[float]] = {name: [] for name in teams}
        for cycle in range(2 + args.cycles):
            for name, team in teams.items():
                taken = team.cycle()
                if cycle >= 2:
                    seconds[name].append(taken)
            print(f'\rcycle {cycle + 1} of {2 + args.cycles}', end='', file=sys.stderr, flush=True)
        print(file=sys.stderr)
        for team in teams.values():
            team.close()
    return seconds


def reduced_bytes(training: Training) -> dict[str, tuple[int, int]]:
    """Bytes that a process hands to all-reduces in a cycle.

    Args:
        training (Training): The model and its optimizers.

    Returns:
        dict[str, tuple[int, int]]: Level -> bytes sent while its backward pass runs, and bytes that are waited for.
    """

    def size(level: str) -> int:
        return sum(parameter.numel() * parameter.element_size() for parameter in parameters[level])

    if not training.multi_level:
        total = sum(p.numel() * p.element_size() for p in training.model.parameters() if p.requires_grad)
        return {'pretrain': (total, 0)}
    wrapper = training.wrapper
    parameters = {level: wrapper.level_parameters(level) for level in wrapper.levels}
    # A decoder, which no downstream loss reaches, is in no vector.
    reached = {level: size(level) for level in wrapper.levels}
    reached[wrapper.base] = sum(
        p.numel() * p.element_size() for p in training.model.backbone.parameters() if p.requires_grad
    )
    result = {}
    for level in wrapper.levels:
        gradients = wrapper.cadence.steps[level] * size(level)
        vectors = sum(reached[lower] for lower in wrapper.level(level).graph.targets) if wrapper.level(level).graph else 0
        result[level] = (0, gradients + vectors) if wrapper.level(level).graph else (gradients, 0)
    return result


def calculate(args: argparse.Namespace, sizes: dict[str, tuple[int, int]]) -> list[dict]:
    """Rings over more GPUs; see the module."""
    hidden, waited = (sum(size[i] for size in sizes.values()) for i in range(2))
    rows = []
    for gpus in args.gpus:
        speed = 1e9 * (args.node_bandwidth if gpus <= args.gpus_per_node else args.bandwidth)
        seconds = [2 * (gpus - 1) / gpus * count / speed for count in (hidden, waited)]
        rows.append(
            dict(
                gpus=gpus,
                overlapped_seconds=seconds[0],
                waited_seconds=seconds[1],
                efficiency_with_overlap=args.cycle_seconds / (args.cycle_seconds + seconds[1]),
                efficiency_without=args.cycle_seconds / (args.cycle_seconds + sum(seconds)),
            )
        )
    return rows


def main() -> None:
    """Measure, calculate, print both tables, write JSON."""
    args = parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')
    training = Training(load_config(args.config, args.cfg_options), 1, 'cpu', 0)
    sizes = reduced_bytes(training)
    rows = calculate(args, sizes)
    seconds = {} if args.arithmetic_only else measure(args)
    if seconds:
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        print(f'{"":18}{"ms a cycle":>12}{"(min-max)":>16}{"images/s":>10}{"efficiency":>12}')
        for name, median in medians.items():
            count = 1 if name == ALONE else args.processes
            spread = f'{1000 * min(seconds[name]):.0f}-{1000 * max(seconds[name]):.0f}'
            images = count * args.batch_size * (training.wrapper.cadence.iterations if training.multi_level else 1)
            print(f'{name:18}{1000 * median:12.0f}{spread:>16}{images / median:10.0f}{medians[ALONE] / median:12.3f}')
        print(
            f'{args.processes} processes of one thread on {os.cpu_count()} cores, batch {args.batch_size} each, '
            f'{describe_versions("torch")}\n'
        )
    print(f'{"level":12}{"overlapped MB":>15}{"waited for MB":>15}')
    for level, (hidden, waited) in sizes.items():
        print(f'{level:12}{hidden / 1e6:15.3f}{waited / 1e6:15.3f}')
    print(f'\n{"GPUs":>5}{"overlapped ms":>15}{"waited for ms":>15}{"efficiency":>12}{"without overlap":>17}')
    for row in rows:
        print(
            f'{row["gpus"]:5}{1000 * row["overlapped_seconds"]:15.1f}{1000 * row["waited_seconds"]:15.1f}'
            f'{row["efficiency_with_overlap"]:12.3f}{row["efficiency_without"]:17.3f}'
        )
    print(
        f'calculated for {args.cycle_seconds:g} s of work a cycle, {args.node_bandwidth:g} GB/s within and '
        f'{args.bandwidth:g} GB/s between machines of {args.gpus_per_node}'
    )
    if args.json:
        write_json(args.json, dict(settings=vars(args), seconds=seconds, bytes=sizes, calculated=rows))


if __name__ == '__main__':
    main()
