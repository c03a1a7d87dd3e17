#!/usr/bin/env python
"""Time and memory of pretraining: mmpretrain's MAE, our MAE, and MLO-MAE with each hypergradient estimator.

    python tools/benchmarks/pretrain_speed.py [--device cpu] [--json speed.json]

Each variant has a process of its own, and they run in turns, a cycle each, so that a machine whose speed drifts slows all of
them; medians are reported. A cycle is two pretrain steps; MLO-MAE adds a finetune and a masking step. Peak memory is, on
CPUs, the resident memory beyond the imports, on GPUs that of tensors. Sizes are replaced in the configs for CIFAR-10.
"""

import argparse
import os.path as osp
import statistics
import sys
from functools import partial

HERE = osp.dirname(osp.realpath(__file__))
sys.path[:0] = [HERE, osp.dirname(osp.dirname(HERE))]

from options import add_machine, add_shape, read_shape

from mmmlo.utils.process import Parser, run, start


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    add_shape(parser)
    parser.add_argument('--batch-size', type=int, default=64, help='images a batch, on every level; default: 64')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast')
    add_machine(parser, cycles=15, warmup=3)
    return parser.read(cycles=1, warmup=0)


start(__name__, parse_args)

from measure import Worker, describe_run, in_turns, prepare, write_json
from variants import build_cycle, config, mmpretrain_config

from mmmlo.registry import HYPERGRADIENTS


def main() -> None:
    """Time the variants in turn, print a table, write JSON."""
    args = parse_args()
    prepare(args)
    shape = read_shape(args, args.batch_size)
    configs = {'mmpretrain MAE': mmpretrain_config(shape), 'MAE': config('MAE', shape)}
    for estimator in sorted(HYPERGRADIENTS.module_dict):
        cfg = configs[f'MLO-MAE {estimator}'] = config('MLO-MAE', shape)
        cfg.optim_wrapper.levels.masking.hypergradient = dict(type=f'mmmlo.{estimator}')
    start_one = partial(Worker, device=args.device, threads=args.threads)
    workers = {
        name: partial(start_one, partial(build_cycle, cfg, args.batch_size, args.device, args.amp))
        for name, cfg in configs.items()
    }
    times = in_turns(workers, args.cycles, args.warmup)
    reference = statistics.median(times.seconds['MAE'])
    rows = []
    print(f'{"":28}{"ms a cycle":>12}{"(min-max)":>16}{"over 2 MAE":>12}{"images/s":>10}{"peak MiB":>10}')
    for name, seconds in times.seconds.items():
        median = statistics.median(seconds)
        (memory,) = times.memory[name]
        over = median / reference
        rows.append(
            dict(name=name, ms_per_cycle=1000 * median, cycle_over_two_mae_steps=over, peak_memory_mib=memory)
        )
        spread = f'{1000 * min(seconds):.0f}-{1000 * max(seconds):.0f}'
        print(
            f'{name:28}{1000 * median:12.1f}{spread:>16}{over:12.2f}{2 * args.batch_size / median:10.0f}{memory:10.0f}'
        )
    print(f'{describe_run(args)}, batch {args.batch_size}')
    write_json(args.json, args, dict(rows=rows, seconds=times.seconds))


if __name__ == '__main__':
    run(main)
