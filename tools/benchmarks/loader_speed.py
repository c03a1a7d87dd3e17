#!/usr/bin/env python
"""Images a second of the loaders alone: small images by sample and in memory, photographs by Pillow's resize and PyTorch's.

    python tools/benchmarks/loader_speed.py [--photos DIR] [--workers 0 1 2] [--json loaders.json]

The pipelines are those of the configs cifar10.py, cifar10_in-memory.py and imagenet.py, in loaders as the training loops
build them. Small images are synthetic. Photographs are those in DIR, in any of its folders; without it JPEG files of
500 x 375 with the spectrum of photographs are made, of about 90 KB. All loaders run in turn, so that a
machine whose speed drifts slows all of them; medians and the spread of whole rounds are reported, with workers that have
started.

"left to the device" only decodes and crops, and pads the crops to one size so that a GPU could resize them: what that saves
is to be set against what larger batches cost on their way from the workers.

Whether the workers feed a GPU is calculated, not measured: so many times the rate of one worker, at most what the main
process can take, against what a GPU eats. By default that is a ViT-S/16 in plain MAE at 224 px on an H200 that reaches 45 %
of the peak of its bf16 matrix units, see `mae_flops`; levels with all patches visible eat fewer images a second.
"""

import argparse
import copy
import os
import os.path as osp
import statistics
import sys
import tempfile
import time

HERE = osp.dirname(osp.abspath(__file__))
ROOT = osp.dirname(osp.dirname(HERE))
sys.path[:0] = [HERE, ROOT]

from mmmlo.utils.process import Parser, run, start

PEAK = 989e12  # bf16 matrix operations a second of an H200, by its data sheet, without sparsity
SHARE = 0.45
WIDTH, HEIGHT = 500, 375
MOST_FILES = 256
ENDINGS = ('.jpg', '.jpeg', '.png')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('--photos', metavar='DIR', help='a folder with photographs; default: synthetic ones')
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 1, 2], help='numbers of workers')
    parser.add_argument('--batch-size', type=int, default=64, help='images a batch')
    parser.add_argument('--small', type=int, default=6400, help='images of 32 px in a round')
    parser.add_argument('--large', type=int, default=768, help='photographs in a round')
    parser.add_argument('--repeats', type=int, default=5, help='rounds that are timed')
    parser.add_argument('--gpu-workers', type=int, default=16, help='workers that feed a GPU')
    parser.add_argument(
        '--gpu-images-per-second', type=float, help='what the GPU eats; default: calculated, see the top of this file'
    )
    parser.add_argument('--json', metavar='FILE', help='write all figures here')
    args = parser.read(batch_size=1, small=1, large=1, repeats=1, gpu_workers=1, workers=0)
    if args.gpu_images_per_second is not None and args.gpu_images_per_second <= 0:
        parser.error('--gpu-images-per-second must be positive')
    if args.photos is not None and not osp.isdir(args.photos):
        parser.error(f'--photos: there is no folder {args.photos}')
    if min(args.small, args.large) < args.batch_size:
        parser.error('--small and --large must be at least --batch-size')
    return args


start(__name__, parse_args)

import cv2
import mmcv
import numpy as np
import torch
from measure import progress, write_json
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.datasets import BaseDataset
from torch.utils.data import DataLoader

from mmmlo.datasets import TorchRandomResizedCrop
from mmmlo.launch.config import load_config
from mmmlo.registry import DATASETS, TRANSFORMS
from mmmlo.utils.errors import SettingError


@DATASETS.register_module()
class Photographs(BaseDataset):
    """So many of the images in a folder and the folders in it, one after another and again."""

    def __init__(self, folder: str, count: int, **kwargs) -> None:
        self.folder, self.count = folder, count
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Find the files."""
        walk = sorted(os.walk(self.folder))
        paths = [osp.join(root, name) for root, _, names in walk for name in sorted(names)]
        paths = [path for path in paths if path.lower().endswith(ENDINGS)]
        if not paths:
            raise SettingError(f'--photos: {self.folder} holds no {", ".join(ENDINGS)}')
        return [dict(img_path=paths[i % len(paths)], gt_label=0) for i in range(self.count)]


@TRANSFORMS.register_module()
class CropForDevice(TorchRandomResizedCrop):
    """Crops, and pads to the size in which the crops of a batch have room; what sticks out is cut off."""

    def transform(self, results: dict) -> dict:
        """Crop and pad."""
        top, left, height, width = self.rand_crop_params(results['img'])
        height, width = min(height, WIDTH), min(width, WIDTH)
        image = mmcv.imcrop(results['img'], np.array([left, top, left + width - 1, top + height - 1]))
        results['img'] = mmcv.impad(image, shape=(WIDTH, WIDTH))
        return results


def mae_flops(dims: int = 384, depth: int = 12, patches: int = 196, mask_ratio: float = 0.75) -> float:
    """Operations of a step of plain MAE an image: forward and, twice as many, backward.

    A block takes 12 C^2 multiply-adds a token in its linear layers and 2 L C in attention. The decoder is MAE's, 8 blocks of
    512 dims over all patches. ViT-S/16 at 224 px: 39 GFLOP.
    """

    def blocks(length: int, width: int, number: int) -> int:
        return number * length * (12 * width**2 + 2 * length * width)

    visible, pixels = patches - int(patches * mask_ratio), 768
    encoder = patches * pixels * dims + blocks(visible + 1, dims, depth)
    decoder = (visible + 1) * dims * 512 + blocks(patches + 1, 512, 8) + patches * 512 * pixels
    return 3 * 2 * (encoder + decoder)


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


def variants(args: argparse.Namespace, folder: str) -> dict[str, tuple[dict, str]]:
    """Name -> the config of a training set, and its collate function."""
    found = {}
    for name, config in (('32 px, by sample', 'cifar10'), ('32 px, in memory', 'cifar10_in-memory')):
        loader = load_config(osp.join(ROOT, f'configs/_base_/datasets/{config}.py')).train_dataloader
        wrapper = loader.dataset
        while 'dataset' in wrapper.dataset:
            wrapper = wrapper.dataset
        per_class = -(-args.small // 8)  # in 10 classes, of which the split leaves out 20 %
        wrapper.dataset = dict(
            type='mmmlo.SyntheticImages', per_class=per_class, size=32, pipeline=wrapper.dataset.pipeline
        )
        found[name] = loader.dataset, loader.collate_fn.type
    cfg = load_config(osp.join(ROOT, 'configs/_base_/datasets/imagenet.py'))
    crops = {
        '224 px, resized by Pillow': dict(type='RandomResizedCrop', backend='pillow'),
        '224 px, resized by PyTorch': {},
        '224 px, left to the device': dict(type='mmmlo.CropForDevice'),
    }
    for name, crop in crops.items():
        pipeline = copy.deepcopy(cfg.train_pipeline)
        next(transform for transform in pipeline if 'RandomResizedCrop' in transform['type']).update(crop)
        photos = dict(type='mmmlo.Photographs', folder=folder, count=args.large, pipeline=pipeline)
        found[name] = photos, cfg.train_dataloader.collate_fn.type
    return found


def build(dataset: dict, collate: str, batch_size: int, workers: int) -> DataLoader:
    """A loader as the training loops build it."""
    cfg = dict(
        batch_size=batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
        drop_last=True,
        collate_fn=dict(type=collate),
        sampler=dict(type='mmmlo.ResumableSampler', sampler=dict(type='DefaultSampler', shuffle=True)),
        dataset=dict(type='mmmlo.SeededDataset', dataset=copy.deepcopy(dataset)),
    )
    return Runner.build_dataloader(cfg, seed=0)


def time_round(loader: DataLoader) -> tuple[float, float]:
    """Images a second in a round, and microseconds of the main process's CPU for each."""
    images, start, cpu = 0, time.perf_counter(), time.process_time()
    for batch in loader:
        images += len(batch['inputs'])
    return images / (time.perf_counter() - start), 1e6 * (time.process_time() - cpu) / images


def measure(args: argparse.Namespace, folder: str) -> list[dict]:
    """Rates of all loaders with all numbers of workers."""
    loaders = {
        (name, workers): build(*settings, args.batch_size, workers)
        for name, settings in variants(args, folder).items()
        for workers in args.workers
    }
    rounds: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in loaders}
    for repeat in range(args.repeats + 1):
        for key, loader in loaders.items():
            times = time_round(loader)
            if repeat:  # the first one starts the workers
                rounds[key].append(times)
        progress(f'round {repeat} of {args.repeats}')
    print(file=sys.stderr)
    rows = []
    for (name, workers), times in rounds.items():
        rates, main_us = zip(*times)
        row = dict(loader=name, workers=workers, images_per_second=statistics.median(rates))
        rows.append(row | dict(least=min(rates), most=max(rates), main_process_us=statistics.median(main_us)))
    return rows


def feeding(rows: list[dict], workers: int, needed: float) -> list[dict]:
    """What so many workers would give, by the rate of one: measured with one, or else without any."""
    found = []
    for name in dict.fromkeys(row['loader'] for row in rows):
        own = {row['workers']: row for row in rows if row['loader'] == name}
        one = own.get(1) or own[min(own)]
        each = one['images_per_second'] / max(one['workers'], 1)
        # Sending batches is the main process's share; without workers it has the whole work.
        limit = 1e6 / one['main_process_us'] if one['workers'] else float('inf')
        rate = min(workers * each, limit)
        found.append(dict(loader=name, each=each, workers=workers, images_per_second=rate, share=rate / needed))
    return found


def report(rows: list[dict], fed: list[dict], needed: float) -> None:
    """Print both tables."""
    print(f'{"loader":28}{"workers":>8}{"images/s":>10}{"(least-most)":>18}{"main process, us/image":>24}')
    for row in rows:
        spread = f'({row["least"]:.0f}-{row["most"]:.0f})'
        print(
            f'{row["loader"]:28}{row["workers"]:8}{row["images_per_second"]:10.0f}{spread:>18}'
            f'{row["main_process_us"]:24.1f}'
        )
    print(f'\nCalculated, not measured: a GPU that eats {needed:.0f} images a second at 224 px')
    for row in fed:
        if row['loader'].startswith('224'):
            verdict = 'feed it' if row['share'] >= 1 else f'keep it busy {row["share"]:.0%} of the time'
            print(
                f'{row["loader"]}: {row["workers"]} workers of {row["each"]:.0f} give '
                f'{row["images_per_second"]:.0f} and {verdict}'
            )


def main() -> None:
    """Time all in turn and print tables."""
    args = parse_args()
    # As in workers.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    needed = args.gpu_images_per_second or SHARE * PEAK / mae_flops()
    with tempfile.TemporaryDirectory() as folder, DefaultScope.overwrite_default_scope('mmpretrain'):
        if args.photos is None:
            write_photos(folder, min(args.large, MOST_FILES))
        rows = measure(args, args.photos or folder)
    fed = feeding(rows, args.gpu_workers, needed)
    report(rows, fed, needed)
    write_json(args.json, args, dict(rows=rows, gpu_images_per_second=needed, calculated=fed))


if __name__ == '__main__':
    run(main)
