#!/usr/bin/env python
"""What PyTorch's threads cost while they wait for each other: spinning, as by default, or asleep, as the tools let them.

    python tools/benchmarks/waiting_threads.py [--neighbours 0 1] [--cycles 7] [--json threads.json]

Two processes train the same small MAE in turns, two steps a cycle: one with ``OMP_WAIT_POLICY=passive``,
``GOMP_SPINCOUNT=1000`` and ``KMP_BLOCKTIME=0``, which every tool sets, one without. This is repeated beside so many
processes that do nothing but calculate, as data workers or other users' jobs do. Ratios of one run are what counts: alone
the sleeping threads should cost no more than 3 %.
"""

import argparse
import os.path as osp
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial

HERE = osp.dirname(osp.realpath(__file__))
sys.path[:0] = [HERE, osp.dirname(osp.dirname(HERE))]

from options import add_machine, add_shape, read_shape

from mmmlo.utils.process import THREADS, Parser, run, start


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    add_shape(parser)
    parser.add_argument('--batch-size', type=int, default=64, help='images a batch; default: 64')
    parser.add_argument('--neighbours', type=int, nargs='+', default=[0, 1], help='busy processes beside; default: 0 1')
    add_machine(parser, cycles=7, warmup=1)
    return parser.read(cycles=1, warmup=0, neighbours=0)


start(__name__, parse_args)

from measure import Row, Worker, describe_run, in_turns, prepare, print_rows, write_json
from variants import build_cycle, config


def compare(args: argparse.Namespace, neighbours: int) -> Row:
    """Seconds of a cycle with sleeping threads over one with spinning threads, beside so many busy processes."""
    build = partial(build_cycle, config('MAE', read_shape(args, args.batch_size)), args.batch_size, 'cpu')
    workers = {
        name: partial(Worker, build, waiting=waiting, threads=args.threads)
        for name, waiting in (('asleep', THREADS), ('spinning', {}))
    }
    title = f'beside {neighbours} busy processes' if neighbours else 'alone'
    with ExitStack() as stack:
        for _ in range(neighbours):
            busy = subprocess.Popen([sys.executable, '-c', 'while True: pass'])
            stack.callback(busy.kill)
        times = in_turns(workers, args.cycles, args.warmup, title)
    return times.row(title, 'asleep', 'spinning', None if neighbours else 1.03)


def main() -> None:
    """Time both, alone and beside busy processes, and print the ratios."""
    args = parse_args()
    args.device = 'cpu'
    prepare(args)
    rows = [compare(args, neighbours) for neighbours in args.neighbours]
    print_rows(rows, 'spinning')
    print(describe_run(args))
    write_json(args.json, args, dict(rows=[asdict(row) for row in rows]))


if __name__ == '__main__':
    run(main)
