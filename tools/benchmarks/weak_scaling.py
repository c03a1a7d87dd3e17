#!/usr/bin/env python
"""Weak scaling over processes on CPUs, and the bytes that a cycle sends.

    python tools/benchmarks/weak_scaling.py configs/mlo_mae/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py \\
        [--processes 2] [--batch-size 64] [--cfg-options KEY=VALUE ...] [--json scaling.json]

Every process has one thread and trains on a batch of its own size, by gloo on this machine. Three settings run in turns, a
cycle each:

- ``one process``;
- ``several, apart``: as many processes at once that send nothing: what they lose, they lose to the shared caches and memory;
- ``several``: the same with gradients and vectors averaged. What it takes longer than ``apart`` is communication.

The second table counts the bytes that each process hands to an all-reduce in a cycle, by level. Gradients of a level that
moves by its own loss travel while the backward pass runs; a hypergradient and its vectors are waited for.
"""

import argparse
import os
import os.path as osp
import statistics
import sys
import tempfile
from contextlib import ExitStack
from functools import partial

HERE = osp.dirname(osp.realpath(__file__))
sys.path[:0] = [HERE, osp.dirname(osp.dirname(HERE))]

from mmmlo.utils.process import Parser, run, start


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('config', help='a pretraining config of this project')
    parser.add_argument('--processes', type=int, default=2, help='processes, each of one thread')
    parser.add_argument('--batch-size', type=int, default=64, help='images a batch and process, on every level')
    parser.add_argument('--cycles', type=int, default=7, help='cycles that are timed')
    parser.add_argument('--json', metavar='FILE', help='write all figures here')
    parser.add_cfg_options()
    return parser.read(processes=2, cycles=1, batch_size=1)


start(__name__, parse_args)

import torch
from measure import Cycle, Worker, prepare, progress, write_json
from variants import Training, masking_config

WARMUP = 2


def build(args: argparse.Namespace, rank: int, store: str | None) -> Cycle:
    """Build one of the processes; without a store, a file by which they meet, it sends nothing to the others."""
    if store is not None:
        torch.distributed.init_process_group('gloo', f'file://{store}', rank=rank, world_size=args.processes)
    return Training(masking_config(args), args.batch_size, 'cpu').cycle


def measure(args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each cycle, those of the slowest process, by setting."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = osp.join(folder, 'store')
        settings = {'one process': (1, None), 'several, apart': (args.processes, None), 'several': (args.processes, store)}
        teams = {
            name: [Worker(partial(build, args, rank, store), threads=1) for rank in range(count)]
            for name, (count, store) in settings.items()
        }
        for worker in sum(teams.values(), []):
            stack.callback(worker.close)
        for worker in sum(teams.values(), []):
            worker.answer()
        seconds: dict[str, list[float]] = {name: [] for name in teams}
        for cycle in range(WARMUP + args.cycles):
            for name, team in teams.items():
                for worker in team:
                    worker.ask('cycle')
                taken = max([worker.answer() for worker in team])
                if cycle >= WARMUP:
                    seconds[name].append(taken)
            progress(f'cycle {cycle + 1} of {WARMUP + args.cycles}')
        print(file=sys.stderr)
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


def main() -> None:
    """Measure, print both tables, write JSON."""
    args = parse_args()
    prepare(argparse.Namespace(device='cpu', threads=None))
    training = Training(masking_config(args), 1, 'cpu')
    sizes = reduced_bytes(training)
    seconds = measure(args)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f'{"":18}{"ms a cycle":>12}{"(min-max)":>16}{"images/s":>10}{"efficiency":>12}')
    for name, median in medians.items():
        spread = f'{1000 * min(seconds[name]):.0f}-{1000 * max(seconds[name]):.0f}'
        images = (1 if name == 'one process' else args.processes) * args.batch_size * training.iterations
        efficiency = medians['one process'] / median
        print(f'{name:18}{1000 * median:12.0f}{spread:>16}{images / median:10.0f}{efficiency:12.3f}')
    print(
        f'{args.processes} processes of one thread on {os.cpu_count()} cores, batch {args.batch_size} each, '
        f'torch {torch.__version__}\n'
    )
    print(f'{"level":12}{"overlapped MB":>15}{"waited for MB":>15}')
    for level, (hidden, waited) in sizes.items():
        print(f'{level:12}{hidden / 1e6:15.3f}{waited / 1e6:15.3f}')
    write_json(args.json, args, dict(seconds=seconds, bytes=sizes))


if __name__ == '__main__':
    run(main)
