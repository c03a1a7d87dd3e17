#!/usr/bin/env python
"""Where the time of a training cycle goes: by level and by the edges of the hypergradient, with operations and a floor.

    python tools/benchmarks/profile_cycle.py configs/mlo_mae/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py \\
        [--batch-size 64] [--cfg-options KEY=VALUE ...] [--json profile.json]

Builds the config's model and optimizers, feeds every level a batch of noise that is on the device already, times some
cycles, and then records one with PyTorch's profiler. Each operator is put to the level in which it ran and to its phase:

- ``loss``: forward and backward pass of the level's own loss;
- ``edge: from LEVEL``: what carries a vector of the hypergradient on from that level;
- ``step``: clipping, the check of the gradients and the optimizer; ``reduce``: averages over processes.

On CPUs the time in which no operator ran, Python's, belongs to its phase too. Operations are counted for matrix products,
convolutions and attention, whose time is ``products``, a multiplication and an addition as two; the floor is the time that
they would take at the rate of one large matrix product, which is measured first.

The profiler slows small operators down. The table is scaled to the median of the cycles that were timed without it.
"""

import argparse
import math
import os.path as osp
import re
import statistics
import sys
from collections import defaultdict
from typing import Any

HERE = osp.dirname(osp.realpath(__file__))
sys.path[:0] = [HERE, osp.dirname(osp.dirname(HERE))]

from options import add_machine

from mmmlo.utils.process import Parser, run, start


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('config', help='a pretraining config of this project')
    parser.add_argument('--batch-size', type=int, default=64, help='images a batch, on every level; default: 64')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast on every level')
    parser.add_cfg_options()
    add_machine(parser, cycles=7, warmup=2)
    return parser.read(cycles=1, batch_size=1)


start(__name__, parse_args)

import torch
from measure import describe_run, prepare, synchronize, time_call, write_json
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import flop_registry
from variants import Training, masking_config

_ATEN = torch.ops.aten
# Operator -> PyTorch's formula, and how many of its arguments that takes.
COUNTED = {
    'aten::mm': (_ATEN.mm, 2),
    'aten::addmm': (_ATEN.addmm, 3),
    'aten::addmm_': (_ATEN.addmm, 3),
    'aten::bmm': (_ATEN.bmm, 2),
    'aten::baddbmm': (_ATEN.baddbmm, 3),
} | {
    f'aten::_scaled_dot_product_{kind}': formula
    for kernel in ('flash_attention', 'flash_attention_for_cpu', 'efficient_attention', 'cudnn_attention')
    for kind, formula in {
        kernel: (_ATEN._scaled_dot_product_flash_attention, 3),
        f'{kernel}_backward': (_ATEN._scaled_dot_product_flash_attention_backward, 4),
    }.items()
}
PRODUCT = re.compile(r'aten::.*(mm|conv|attention)')


def peak_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product."""
    side = 8192 if device.startswith('cuda') else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / min([time_call(lambda: a @ b, device) for _ in range(7)])


def operations(event: Any) -> int:
    """Operations of one operator, by its shapes; 0 for what is not counted."""
    if event.name == 'aten::conv2d':
        images, weight = event.input_shapes[:2]
        return 2 * images[0] * (images[2] // weight[2]) * (images[3] // weight[3]) * math.prod(weight)
    if event.name == 'aten::convolution_backward':  # by the weight; nothing asks for that by the image
        gradient, _, weight = event.input_shapes[:3]
        return 2 * gradient[0] * gradient[2] * gradient[3] * math.prod(weight)
    if event.name not in COUNTED:
        return 0
    operator, arguments = COUNTED[event.name]
    return flop_registry[operator](*event.input_shapes[:arguments])


def profile_cycle(training: Training, device: str) -> dict[tuple[str, str], dict[str, float]]:
    """Record one cycle and sum up the device's or the CPU's time: (level, phase) -> seconds and operations."""
    on_device = device.startswith('cuda')
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_device else [])
    with profile(activities=activities, record_shapes=True) as profiler:
        training.cycle()
        synchronize(device)
    events = profiler.events()
    ranges = [
        (event.time_range.start, event.time_range.end, event.name)
        for event in sorted(events, key=lambda event: event.time_range.start)
        if event.name.startswith(('level: ', 'edge: ')) or event.name in ('step', 'reduce')
    ]
    table: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: dict(seconds=0.0, products=0.0, operations=0))
    for event in events:
        # By time, not by nesting: on GPUs a backward pass runs in a thread of its own. The outermost range is the level's.
        level, *inner = [name for begin, end, name in ranges if begin <= event.time_range.start <= end] or ['']
        own_time = event.self_device_time_total if on_device else event.self_cpu_time_total
        if not level or (on_device and event.name in (level, *inner)):
            continue
        row = table[level.removeprefix('level: '), inner[0] if inner else 'loss']
        row['seconds'] += own_time / 1e6
        row['products'] += own_time / 1e6 if PRODUCT.match(event.name) else 0
        row['operations'] += operations(event)
    return dict(table)


def print_table(rows: list[dict], cycle: float, rate: float) -> None:
    """Print the rows and their sums."""
    print(
        f'{"level":10}{"phase":22}{"ms":>9}{"share":>8}{"products ms":>13}{"GFLOP":>9}{"GFLOP/s":>9}{"floor ms":>10}'
    )

    def line(level: str, phase: str, chosen: list[dict]) -> None:
        seconds, products, count = (sum(row[key] for row in chosen) for key in ('seconds', 'products', 'operations'))
        speed = count / products / 1e9 if products else 0
        print(
            f'{level:10}{phase:22}{1000 * seconds:9.1f}{seconds / cycle:8.1%}{1000 * products:13.1f}'
            f'{count / 1e9:9.2f}{speed:9.0f}{1000 * count / rate:10.1f}'
        )

    for row in rows:
        line(row['level'], row['phase'], [row])
    for level in dict.fromkeys(row['level'] for row in rows):
        line(level, 'all', [row for row in rows if row['level'] == level])
    line('cycle', '', rows)


def main() -> None:
    """Time, profile, print a table, write JSON."""
    args = parse_args()
    prepare(args)
    cfg = masking_config(args)
    rate = peak_rate(args.device, torch.bfloat16 if args.amp else torch.float32)
    training = Training(cfg, args.batch_size, args.device, args.amp)
    seconds = [time_call(training.cycle, args.device) for _ in range(args.warmup + args.cycles)][args.warmup :]
    cycle = statistics.median(seconds)
    table = profile_cycle(training, args.device)
    scale = cycle / sum(row['seconds'] for row in table.values())
    rows = [
        dict(row, level=level, phase=phase, seconds=scale * row['seconds'], products=scale * row['products'])
        for (level, phase), row in table.items()
    ]
    print_table(rows, cycle, rate)
    print(
        f'{describe_run(args)}, batch {args.batch_size}: {1000 * cycle:.0f} ms a cycle '
        f'({1000 * min(seconds):.0f}-{1000 * max(seconds):.0f}), {1000 * cycle / scale:.0f} ms with the profiler; '
        f'a large matrix product reaches {rate / 1e9:.0f} GFLOP/s'
    )
    write_json(args.json, args, dict(seconds=seconds, rate=rate, rows=rows))


if __name__ == '__main__':
    run(main)
