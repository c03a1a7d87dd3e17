#!/usr/bin/env python
"""Images a second of the loaders alone: small images by sample and in memory, photographs by mmpretrain's way and by ours.

    python tools/benchmarks/loader_speed.py [--photos DIR] [--workers 0 1 2] [--json loaders.json]

The pipelines are those of the configs cifar10.py, cifar10_in-memory.py and imagenet.py, in loaders as the training loops
build them. Photographs come through the loader of mmpretrain's own config of MAE too; the last lines are ours over it. Small
images are synthetic. Photographs are those in DIR and the folders in it; without it JPEG files of 500 x 375 with the
spectrum of photographs are made, of about 90 KB.

All loaders run in turn, so that a machine whose speed drifts slows all of them; medians and the spread of whole rounds are
reported, with workers that have started.
"""

import argparse
import copy
import os.path as osp
import statistics
import sys
import tempfile
import time

HERE = osp.dirname(osp.realpath(__file__))
ROOT = osp.dirname(osp.dirname(HERE))
sys.path[:0] = [HERE, ROOT]

from mmmlo.utils.process import Parser, run, start

WIDTH, HEIGHT = 500, 375
OURS, THEIRS = '224 px, ours', "224 px, mmpretrain's"


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('--photos', metavar='DIR', help='a folder with photographs; default: synthetic ones')
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 1, 2], help='numbers of workers')
    parser.add_argument('--batch-size', type=int, default=64, help='images a batch')
    parser.add_argument('--small', type=int, default=6400, help='images of 32 px in a round')
    parser.add_argument('--large', type=int, default=768, help='photographs in a round, at most')
    parser.add_argument('--repeats', type=int, default=5, help='rounds that are timed')
    parser.add_argument('--json', metavar='FILE', help='write all figures here')
    args = parser.read(batch_size=1, small=1, large=1, repeats=1, workers=0)
    if args.photos is not None and not osp.isdir(args.photos):
        parser.error(f'--photos: there is no folder {args.photos}')
    if min(args.small, args.large) < args.batch_size:
        parser.error('--small and --large must be at least --batch-size')
    return args


start(__name__, parse_args)

import cv2
import numpy as np
import torch
from measure import progress, write_json
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch.utils.data import DataLoader
from variants import MMPRETRAIN

from mmmlo.launch.config import load_config
from mmmlo.utils.errors import SettingError


def write_photos(folder: str, count: int) -> None:
    """Write JPEG files whose spectrum falls as that of photographs."""
    rng = np.random.default_rng(0)
    for i in range(count):
        image = np.full((HEIGHT, WIDTH, 3), 127.0, dtype=np.float32)
        for octave in range(9):
            side = 2**octave + 1
            noise = rng.normal(0, 40 * 0.9**octave, (side, side, 3)).astype(np.float32)
            image += cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        path = osp.join(folder, f'{i:04}.jpg')
        cv2.imwrite(path, image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])


def variants(args: argparse.Namespace, folder: str) -> dict[str, dict]:
    """Name -> dataset, sampler and collate function of a loader, ours as the training loops build it."""
    found = {}
    for name, config in (('32 px, by sample', 'cifar10'), ('32 px, in memory', 'cifar10_in-memory')):
        found[name] = load_config(osp.join(ROOT, f'configs/_base_/datasets/{config}.py')).train_dataloader
        wrapper = found[name].dataset
        while 'dataset' in wrapper.dataset:
            wrapper = wrapper.dataset
        per_class = -(-args.small // 8)  # in 10 classes, of which the split leaves out 20 %
        wrapper.dataset = dict(
            type='mmmlo.SyntheticImages', per_class=per_class, size=32, pipeline=wrapper.dataset.pipeline
        )
    photos = dict(type='mmmlo.ImageFolder', data_prefix=folder, with_label=False, indices=args.large)
    for name, cfg in (
        (OURS, load_config(osp.join(ROOT, 'configs/_base_/datasets/imagenet.py'))),
        (THEIRS, get_config(MMPRETRAIN)),
    ):
        found[name] = cfg.train_dataloader
        found[name].dataset = dict(photos, pipeline=cfg.train_pipeline)
    loaders = {}
    for name, loader in found.items():
        sampler, dataset = dict(type='DefaultSampler', shuffle=True), loader.dataset
        if name != THEIRS:
            sampler = dict(type='mmmlo.ResumableSampler', sampler=sampler)
            dataset = dict(type='mmmlo.SeededDataset', dataset=dataset)
        loaders[name] = dict(dataset=dataset, sampler=sampler, collate_fn=dict(type=loader.collate_fn.type))
    return loaders


def build(loader: dict, batch_size: int, workers: int) -> DataLoader:
    """A loader of full batches."""
    cfg = dict(loader, batch_size=batch_size, num_workers=workers, persistent_workers=workers > 0, drop_last=True)
    built = Runner.build_dataloader(copy.deepcopy(cfg), seed=0)
    if not len(built):
        raise SettingError(f'--photos holds {len(built.dataset)} images, less than --batch-size {batch_size}')
    return built


def images_per_second(loader: DataLoader) -> float:
    """The rate of a round."""
    start = time.perf_counter()
    images = sum(len(batch['inputs']) for batch in loader)
    return images / (time.perf_counter() - start)


def measure(args: argparse.Namespace, folder: str) -> dict[tuple[str, int], list[float]]:
    """Images a second in each round, by loader and number of workers."""
    loaders = {
        (name, workers): build(loader, args.batch_size, workers)
        for name, loader in variants(args, folder).items()
        for workers in args.workers
    }
    rates: dict[tuple[str, int], list[float]] = {key: [] for key in loaders}
    for repeat in range(args.repeats + 1):
        for key, loader in loaders.items():
            rate = images_per_second(loader)
            if repeat:  # the first one starts the workers
                rates[key].append(rate)
        progress(f'round {repeat} of {args.repeats}')
    print(file=sys.stderr)
    return rates


def main() -> None:
    """Time all in turn, print a table and the ratios, write JSON."""
    args = parse_args()
    # As in workers.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder, DefaultScope.overwrite_default_scope('mmpretrain'):
        if args.photos is None:
            write_photos(folder, args.large)
        rates = measure(args, args.photos or folder)
    rows = [
        dict(loader=name, workers=workers, images_per_second=statistics.median(each), least=min(each), most=max(each))
        for (name, workers), each in rates.items()
    ]
    print(f'{"loader":28}{"workers":>8}{"images/s":>10}{"(least-most)":>18}')
    for row in rows:
        spread = f'({row["least"]:.0f}-{row["most"]:.0f})'
        print(f'{row["loader"]:28}{row["workers"]:8}{row["images_per_second"]:10.0f}{spread:>18}')
    ratios = {
        workers: statistics.median(ours / theirs for ours, theirs in zip(rates[OURS, workers], rates[THEIRS, workers]))
        for workers in args.workers
    }
    for workers, ratio in ratios.items():
        print(f"photographs, {workers} workers: ours are {ratio:.2f} times as fast as mmpretrain's")
    write_json(args.json, args, dict(rows=rows, ratios=ratios))


if __name__ == '__main__':
    run(main)
