#!/usr/bin/env python
"""Time and memory of pretraining: mmpretrain's MAE, our MAE, and MLO-MAE with each hypergradient estimator.

    python tools/benchmarks/pretrain_speed.py [--device cpu] [--out speed.json]

All variants run in turn within one process, a cycle each, so that a machine whose speed drifts slows all of them; medians
are reported. A cycle is two pretrain steps; MLO-MAE adds a finetune and a masking step. Peak memory comes from a process
for each variant: on CPUs the resident memory beyond the imports, on GPUs that of tensors.
"""

import argparse
import os.path as osp
import statistics
import sys
import time
from contextlib import closing
from functools import partial

HERE = osp.dirname(osp.abspath(__file__))
sys.path[:0] = [HERE, osp.dirname(osp.dirname(HERE))]

import torch  # noqa: E402
from measure import Cycle, Worker, describe_device, synchronize, write_json  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402
from mmengine.optim import build_optim_wrapper  # noqa: E402
from mmpretrain.structures import DataSample  # noqa: E402

import mmmlo.engine  # noqa: E402, F401  registers the estimators
from mmmlo.registry import HYPERGRADIENTS, MODELS  # noqa: E402

CLASSES = 10


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--dims', type=int, default=192, help='encoder width')
    parser.add_argument('--depth', type=int, default=6, help='encoder blocks')
    parser.add_argument('--heads', type=int, default=3, help='attention heads of the encoder')
    # Two thirds of the encoder's width and blocks, as in ViT-B.
    parser.add_argument('--decoder-dims', type=int, default=128, help='decoder width')
    parser.add_argument('--decoder-depth', type=int, default=4, help='decoder blocks')
    parser.add_argument('--decoder-heads', type=int, default=4, help='attention heads of the decoder')
    parser.add_argument('--img-size', type=int, default=32, help='height and width in pixels')
    parser.add_argument('--patch-size', type=int, default=4, help='patch size in pixels')
    parser.add_argument('--batch-size', type=int, default=64, help='images a batch, on every level')
    parser.add_argument('--cycles', type=int, default=15, help='cycles that are timed')
    parser.add_argument('--warmup', type=int, default=3, help='cycles before')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='cpu or cuda')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast')
    parser.add_argument('--threads', type=int, help='CPU threads; default: what PyTorch takes')
    parser.add_argument('--seed', type=int, default=0, help='seed of weights and images')
    parser.add_argument('--out', help='write the figures here, as JSON')
    return parser.parse_args()


def model_cfg(args: argparse.Namespace, name: str) -> dict:
    """The same autoencoder for every variant."""
    grid = (args.img_size // args.patch_size,) * 2
    arch = dict(
        embed_dims=args.dims, num_layers=args.depth, num_heads=args.heads, feedforward_channels=4 * args.dims
    )
    decoder = dict(
        patch_size=args.patch_size,
        embed_dim=args.dims,
        decoder_embed_dim=args.decoder_dims,
        decoder_depth=args.decoder_depth,
        decoder_num_heads=args.decoder_heads,
    )
    size = dict(img_size=args.img_size, patch_size=args.patch_size)
    if name == 'mmpretrain MAE':
        return dict(
            type='mmpretrain.MAE',
            backbone=dict(type='mmpretrain.MAEViT', arch=arch, mask_ratio=0.75, **size),
            neck=dict(type='mmpretrain.MAEPretrainDecoder', num_patches=grid[0] * grid[1], **decoder),
            head=dict(
                type='mmpretrain.MAEPretrainHead',
                norm_pix=True,
                patch_size=args.patch_size,
                loss=dict(type='mmpretrain.PixelReconstructionLoss', criterion='L2'),
            ),
        )
    cfg = dict(
        type='mmmlo.MAE',
        backbone=dict(type='mmmlo.MaskedViT', arch=arch, **size),
        neck=dict(type='mmmlo.GridMAEDecoder', grid=grid, **decoder),
        head=dict(type='mmmlo.MaskedPixelHead', norm_pix=True, patch_size=args.patch_size),
    )
    if name.startswith('MLO-MAE'):
        cfg.update(
            type='mmmlo.MLOMAE',
            masker=dict(type='mmmlo.MLPMasker', grid=grid, embed_dims=args.dims),
            downstream=dict(type='mmmlo.TokenClsHead', num_classes=CLASSES, in_channels=args.dims),
        )
    return cfg


class Variant:
    """A model with its optimizer and a cycle to time."""

    def __init__(self, args: argparse.Namespace, name: str) -> None:
        torch.manual_seed(args.seed)
        model = MODELS.build(model_cfg(args, name))
        model.init_weights()
        self.model = model.to(args.device).train()
        level = dict(
            type='mmmlo.BFloat16OptimWrapper' if args.amp else 'OptimWrapper',
            optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05),
        )
        levels = dict(pretrain=dict(level, steps=2))
        if name.startswith('MLO-MAE'):
            estimator = dict(type=f'mmmlo.{name.split()[-1]}')
            paths = ['pretrain', 'finetune>pretrain']
            levels.update(finetune=level, masking=dict(level, paths=paths, hypergradient=estimator))
        self.multi_level = not name.startswith('mmpretrain')
        cfg = dict(constructor='mmmlo.MultiLevelOptimWrapperConstructor', levels=levels) if self.multi_level else level
        self.wrapper = build_optim_wrapper(self.model, cfg)
        self.batches = {name: self._batch(args) for name in levels}

    @staticmethod
    def _batch(args: argparse.Namespace) -> dict:
        images = torch.randn(args.batch_size, 3, args.img_size, args.img_size, device=args.device)
        labels = torch.randint(CLASSES, (args.batch_size,), device=args.device)
        return dict(inputs=images, data_samples=[DataSample().set_gt_label(label) for label in labels])

    def cycle(self) -> None:
        """Two pretrain steps, and what the upper levels add."""
        for _ in range(2):
            if self.multi_level:
                due = self.wrapper.due()
                self.wrapper.update_levels(self.model, {level: [self.batches[level]] * n for level, n in due.items()})
            else:
                with self.wrapper.optim_context(self.model):
                    losses = self.model.loss(**self.batches['pretrain'])
                self.wrapper.update_params(self.model.parse_losses(losses)[0])


def build(args: argparse.Namespace, name: str) -> Cycle:
    """Build a variant; see :mod:`measure`.

    Returns:
        Callable: Runs a cycle of it.
    """
    return Variant(args, name).cycle


def peak_memory(args: argparse.Namespace, name: str) -> float:
    """Peak memory of two cycles in a process of its own, in MiB, beyond what the imports take."""
    with closing(Worker(partial(build, args, name), args.device, threads=args.threads)) as worker:
        worker.cycle()
        worker.cycle()
        return worker.peak_memory()


def main() -> None:
    """Time the variants in turn, print a table, write JSON."""
    args = parse_args()
    MMLogger.get_current_instance().setLevel('WARNING')  # not a line for every parameter that is initialized
    if args.threads:
        torch.set_num_threads(args.threads)

    names = ['mmpretrain MAE', 'MAE', *(f'MLO-MAE {estimator}' for estimator in sorted(HYPERGRADIENTS.module_dict))]
    variants = {name: Variant(args, name) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for cycle in range(args.warmup + args.cycles):
        for name, variant in variants.items():
            synchronize(args.device)
            start = time.perf_counter()
            variant.cycle()
            synchronize(args.device)
            if cycle >= args.warmup:
                seconds[name].append(time.perf_counter() - start)
        print(f'\rcycle {cycle + 1} of {args.warmup + args.cycles}', end='', file=sys.stderr, flush=True)
    print(file=sys.stderr)
    del variants, variant

    reference = statistics.median(seconds['MAE'])
    rows = []
    for name in names:
        median = statistics.median(seconds[name])
        rows.append(
            dict(
                name=name,
                ms_per_cycle=1000 * median,
                ms_per_pretrain_step=1000 * median / 2,
                cycle_over_two_mae_steps=median / reference,
                fastest_ms=1000 * min(seconds[name]),
                slowest_ms=1000 * max(seconds[name]),
                pretrain_images_per_second=2 * args.batch_size / median,
                peak_memory_mib=peak_memory(args, name),
            )
        )
    print(f'{"":28}{"ms a step":>11}{"ms a cycle":>12}{"(min-max)":>16}{"over 2 MAE":>12}{"images/s":>10}{"peak MiB":>10}')
    for row in rows:
        spread = f'{row["fastest_ms"]:.0f}-{row["slowest_ms"]:.0f}'
        print(
            f'{row["name"]:28}{row["ms_per_pretrain_step"]:11.1f}{row["ms_per_cycle"]:12.1f}{spread:>16}{row["cycle_over_two_mae_steps"]:12.2f}'
            f'{row["pretrain_images_per_second"]:10.0f}{row["peak_memory_mib"]:10.0f}'
        )
    device = describe_device(args.device)
    print(f'{device}, torch {torch.__version__}, {"bfloat16 autocast" if args.amp else "fp32"}, batch {args.batch_size}')
    if args.out:
        settings = {key: value for key, value in vars(args).items() if key != 'out'}
        write_json(args.out, dict(device=device, torch=torch.__version__, settings=settings, rows=rows))


if __name__ == '__main__':
    main()
