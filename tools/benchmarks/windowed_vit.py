#!/usr/bin/env python
"""The windowed ViT of detection beside the plain one: time of forward and backward pass, and peak memory.

    python tools/benchmarks/windowed_vit.py [--arch base] [--size 1024] [--cycles 3] [--json windowed_vit.json]

Three backbones with the same weights and one image: mmpretrain's ``VisionTransformer`` with feature maps, ``WindowedViT``
with four global blocks, and the same with activation checkpointing. They run in turns, so that whatever else the machine
does hits all of them. Peak memory is that of the tensors that a pass makes. What counts are the ratios of one run.
"""

import argparse
import os.path as osp
import statistics
import sys
from functools import partial

HERE = osp.dirname(osp.realpath(__file__))
sys.path[:0] = [HERE, osp.dirname(osp.dirname(HERE))]

from options import add_machine

from mmmlo.utils.process import Parser, run, start

VARIANTS = {
    'plain': dict(type='mmpretrain.VisionTransformer', with_cls_token=False, out_type='featmap'),
    'windowed': dict(type='mmmlo.WindowedViT'),
    'windowed, checkpointed': dict(type='mmmlo.WindowedViT', with_cp=True),
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('--arch', default='base', help="mmpretrain's name of an architecture; default: base")
    parser.add_argument('--size', type=int, default=1024, help='side of the image in pixels; default: 1024')
    parser.add_argument('--batch-size', type=int, default=1, help='default: 1')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast')
    add_machine(parser, cycles=3, warmup=1)
    return parser.read(cycles=1, warmup=0)


start(__name__, parse_args)

import torch
from measure import Cycle, Worker, describe_run, in_turns, prepare, write_json
from torch import nn

from mmmlo.registry import MODELS


def build(args: argparse.Namespace, name: str) -> Cycle:
    """Build a backbone in training mode, of which a seed gives all the same weights; see :mod:`measure`."""
    torch.manual_seed(0)
    cfg = dict(VARIANTS[name], arch=args.arch, img_size=args.size, patch_size=16)
    model = MODELS.build(cfg).to(args.device)
    model.train()
    return partial(one_pass, args, model, torch.randn(args.batch_size, 3, args.size, args.size, device=args.device))


def one_pass(args: argparse.Namespace, model: nn.Module, images: torch.Tensor) -> None:
    """Run a forward and a backward pass."""
    model.zero_grad()
    with torch.autocast(args.device.split(':')[0], torch.bfloat16, enabled=args.amp):
        (features,) = model(images)
    features.float().square().mean().backward()


def main() -> None:
    """Time in turns, measure memory, print a table, write JSON."""
    args = parse_args()
    prepare(args)
    workers = {name: partial(Worker, partial(build, args, name), args.device, threads=args.threads) for name in VARIANTS}
    times = in_turns(workers, args.cycles, args.warmup)
    medians = {name: statistics.median(values) for name, values in times.seconds.items()}
    print(f'{"":24}{"seconds":>9}{"(min-max)":>16}{"over plain":>12}{"peak MiB":>10}{"over windowed":>15}')
    for name, seconds in times.seconds.items():
        spread, (memory,) = f'{min(seconds):.2f}-{max(seconds):.2f}', times.tensors[name]
        print(
            f'{name:24}{medians[name]:9.2f}{spread:>16}{medians[name] / medians["plain"]:12.2f}{memory:10.0f}'
            f'{memory / times.tensors["windowed"][0]:15.2f}'
        )
    print(f'ViT {args.arch}, {args.size} px, batch {args.batch_size}, {describe_run(args)}')
    write_json(args.json, args, dict(seconds=times.seconds, peak_memory_mib=times.tensors))


if __name__ == '__main__':
    run(main)
