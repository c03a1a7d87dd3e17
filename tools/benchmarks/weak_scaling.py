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
import os
import os.path as osp
import statistics
import sys
import tempfile
from functools import partial

HERE = osp.dirname(osp.abspath(__file__))
sys.path[:0] = [HERE, osp.dirname(osp.dirname(HERE))]

from mmmlo.utils.process import Parser, run, start

ALONE, APART, TOGETHER = 'one process', 'several, apart', 'several'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
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
    parser.add_argument('--json', metavar='FILE', help='write all figures here')
    parser.add_cfg_options()
    return parser.read(processes=2, cycles=1, batch_size=1)


start(__name__, parse_args)

import torch
from measure import Cycle, Worker, prepare, progress, write_json
from profile_cycle import Training

from mmmlo.launch.config import load_config


def build(args: argparse.Namespace, rank: int, store: str | None) -> Cycle:
    """Build one of the processes; without a store, a file by which they meet, it sends nothing to the others."""
    if store is not None:
        torch.distributed.init_process_group('gloo', f'file://{store}', rank=rank, world_size=args.processes)
    return Training(load_config(args.config, args.cfg_options), args.batch_size, 'cpu').cycle


def measure(args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each cycle, those of the slowest process, by setting."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {ALONE: (1, None), APART: (args.processes, None), TOGETHER: (args.processes, osp.join(folder, 'store'))}
        teams = {
            name: [Worker(partial(build, args, rank, store), threads=1) for rank in range(count)]
            for name, (count, store) in settings.items()
        }
        for team in teams.values():
            for worker in team:
                worker.answer()
        seconds: dict[str, list[float]] = {name: [] for name in teams}
        for cycle in range(2 + args.cycles):
            for name, team in teams.items():
                for worker in team:
                    worker.ask('cycle')
                taken = max([worker.answer() for worker in team])
                if cycle >= 2:
                    seconds[name].append(taken)
            progress(f'cycle {cycle + 1} of {2 + args.cycles}')
        print(file=sys.stderr)
        for team in teams.values():
            for worker in team:
                worker.close()
    return seconds


def reduced_bytes(training: Training) -> dict[str, tuple[int, int]]:
    """Bytes that a process hands to all-reduces in a cycle: level -> those sent in its backward pass, those waited for."""

    def size(parameters: list[torch.nn.Parameter]) -> int:
        return sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)

    if not training.multi_level:
        return {'pretrain': (size(list(training.model.parameters())), 0)}
    wrapper = training.wrapper
    own = {level: size(wrapper.level(level).parameters.values()) for level in wrapper.levels}
    # A decoder, which no downstream loss reaches, is in no vector.
    reached = own | {wrapper.base: size(list(training.model.backbone.parameters()))}
    result = {}
    for level in wrapper.levels:
        gradients, graph = wrapper.cadence.steps[level] * own[level], wrapper.level(level).graph
        result[level] = (0, gradients + sum(reached[lower] for lower in graph.targets)) if graph else (gradients, 0)
    return result


def calculate(args: argparse.Namespace, sizes: dict[str, tuple[int, int]]) -> list[dict]:
    """Rings over more GPUs; see the module."""
    totals = [sum(size[i] for size in sizes.values()) for i in range(2)]
    rows = []
    for gpus in args.gpus:
        speed = 1e9 * (args.node_bandwidth if gpus <= args.gpus_per_node else args.bandwidth)
        hidden, waited = (2 * (gpus - 1) / gpus * count / speed for count in totals)
        rows.append(
            dict(
                gpus=gpus,
                overlapped_seconds=hidden,
                waited_seconds=waited,
                efficiency_with_overlap=args.cycle_seconds / (args.cycle_seconds + waited),
                efficiency_without=args.cycle_seconds / (args.cycle_seconds + hidden + waited),
            )
        )
    return rows


def main() -> None:
    """Measure, calculate, print both tables, write JSON."""
    args = parse_args()
    prepare(argparse.Namespace(device='cpu', threads=None))
    training = Training(load_config(args.config, args.cfg_options), 1, 'cpu')
    sizes = reduced_bytes(training)
    rows = calculate(args, sizes)
    seconds = {} if args.arithmetic_only else measure(args)
    if seconds:
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        print(f'{"":18}{"ms a cycle":>12}{"(min-max)":>16}{"images/s":>10}{"efficiency":>12}')
        for name, median in medians.items():
            count = 1 if name == ALONE else args.processes
            spread = f'{1000 * min(seconds[name]):.0f}-{1000 * max(seconds[name]):.0f}'
            images = count * args.batch_size * training.iterations
            print(f'{name:18}{1000 * median:12.0f}{spread:>16}{images / median:10.0f}{medians[ALONE] / median:12.3f}')
        print(
            f'{args.processes} processes of one thread on {os.cpu_count()} cores, batch {args.batch_size} each, '
            f'torch {torch.__version__}\n'
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
    write_json(args.json, args, dict(seconds=seconds, bytes=sizes, calculated=rows))


if __name__ == '__main__':
    run(main)
