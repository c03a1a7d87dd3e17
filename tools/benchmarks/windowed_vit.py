#!/usr/bin/env python
"""The windowed ViT of detection beside the plain one: time of forward and backward pass, and peak memory.

    python tools/benchmarks/windowed_vit.py [--arch base] [--size 1024] [--repeats 3] [--json windowed_vit.json]

Three backbones with the same weights and one image: mmpretrain's ``VisionTransformer`` with feature maps, ``WindowedViT``
with four global blocks, and the same with activation checkpointing. They are timed in turns, so that whatever else the
machine does hits all of them. Peak memory is that of activations, of which GPUs count all and CPUs the live tensors. What
counts are the ratios of one run.
"""

import argparse
import os.path as osp
import statistics
import sys
import time

HERE = osp.dirname(osp.abspath(__file__))
sys.path[:0] = [HERE, osp.dirname(osp.dirname(HERE))]

import torch  # noqa: E402
from measure import describe_device, synchronize, write_json  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402
from torch import nn  # noqa: E402

import mmmlo.models  # noqa: E402, F401
from mmmlo.registry import MODELS  # noqa: E402
from mmmlo.utils.tensor_memory import TensorMemory  # noqa: E402

VARIANTS = {
    'plain': dict(type='mmpretrain.VisionTransformer', with_cls_token=False, out_type='featmap'),
    'windowed': dict(type='mmmlo.WindowedViT'),
    'windowed, checkpointed': dict(type='mmmlo.WindowedViT', with_cp=True),
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--arch', default='base', help="mmpretrain's name of an architecture; default: base")
    parser.add_argument('--size', type=int, default=1024, help='side of the image in pixels; default: 1024')
    parser.add_argument('--batch-size', type=int, default=1, help='default: 1')
    parser.add_argument('--repeats', type=int, default=3, help='passes that are timed, after one that is not; default: 3')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast')
    parser.add_argument('--rel-pos', action='store_true', help='relative positions in the windowed ones')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help='threads on a CPU; default: as PyTorch has it')
    parser.add_argument('--json', metavar='FILE', help='write all figures here')
    return parser.parse_args()


def build(args: argparse.Namespace, name: str) -> nn.Module:
    """A backbone in training mode; a seed gives all the same weights."""
    torch.manual_seed(0)
    cfg = dict(VARIANTS[name], arch=args.arch, img_size=args.size, patch_size=16)
    if args.rel_pos and name != 'plain':
        cfg['rel_pos'] = True
    model = MODELS.build(cfg).to(args.device)
    model.train()
    return model


def make_images(args: argparse.Namespace) -> torch.Tensor:
    """A batch of noise."""
    return torch.randn(args.batch_size, 3, args.size, args.size, device=args.device)


def one_pass(args: argparse.Namespace, model: nn.Module, images: torch.Tensor) -> float:
    """Seconds of a forward and a backward pass."""
    synchronize(args.device)
    start = time.perf_counter()
    with torch.autocast(args.device.split(':')[0], torch.bfloat16, enabled=args.amp):
        (features,) = model(images)
    features.float().square().mean().backward()
    synchronize(args.device)
    return time.perf_counter() - start


def peak_memory(args: argparse.Namespace, model: nn.Module, images: torch.Tensor) -> float:
    """Peak memory of a pass in MiB, beyond weights and images; gradients count."""
    model.zero_grad()
    if args.device.startswith('cuda'):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        one_pass(args, model, images)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with TensorMemory() as memory:
        one_pass(args, model, images)
    return memory.peak / 2**20


def main() -> None:
    """Time in turns, measure memory, print a table, write JSON."""
    args = parse_args()
    MMLogger.get_current_instance().setLevel('WARNING')  # not a line for every parameter that is initialized
    if args.threads:
        torch.set_num_threads(args.threads)

    models, images = {name: build(args, name) for name in VARIANTS}, make_images(args)
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for repeat in range(args.repeats + 1):
        for name, model in models.items():
            taken = one_pass(args, model, images)
            model.zero_grad()
            if repeat:
                seconds[name].append(taken)
        print(f'\rpass {repeat + 1} of {args.repeats + 1}', end='', file=sys.stderr, flush=True)
    print(file=sys.stderr)
    memory = {name: peak_memory(args, model, images) for name, model in models.items()}
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f'{"":24}{"seconds":>9}{"(min-max)":>16}{"over plain":>12}{"peak MiB":>10}{"over windowed":>15}')
    for name in VARIANTS:
        spread = f'{min(seconds[name]):.2f}-{max(seconds[name]):.2f}'
        print(
            f'{name:24}{medians[name]:9.2f}{spread:>16}{medians[name] / medians["plain"]:12.2f}{memory[name]:10.0f}'
            f'{memory[name] / memory["windowed"]:15.2f}'
        )
    device = describe_device(args.device)
    precision = 'bfloat16 autocast' if args.amp else 'fp32'
    print(f'ViT {args.arch}, {args.size} px, batch {args.batch_size}, {precision}, {device}, torch {torch.__version__}')
    if args.json:
        settings = {key: value for key, value in vars(args).items() if key != 'json'}
        figures = dict(seconds=seconds, peak_memory_mib=memory)
        write_json(args.json, dict(device=device, torch=torch.__version__, settings=settings, **figures))


if __name__ == '__main__':
    main()
