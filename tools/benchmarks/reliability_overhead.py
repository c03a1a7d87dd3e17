#!/usr/bin/env python
"""What seeds for each sample and safe checkpoints add to an epoch of the small CIFAR-10 config.

    python tools/benchmarks/reliability_overhead.py [--config CONFIG] [--images 2560] [--repeats 5]

Runs in turn, within one process, so that a machine whose speed drifts slows all of them: mmengine's loop and checkpoint
hook, this project's loop, and its loop and hook. Each run has two epochs of so many images, the first to warm up; medians of
the second, and of what follows it until all hooks are done, which is the checkpoint, make up a whole epoch of 40,000 images.
Synthetic images stand in for data that is not there.

On a machine that others use too, the differences drown. So the images alone are loaded too, in the main process, where
seeds cost most; what they add to an image is set in relation to the time that an image takes in training.
"""

import argparse
import copy
import os.path as osp
import statistics
import sys
import tempfile
import time

HERE = osp.dirname(osp.abspath(__file__))
ROOT = osp.dirname(osp.dirname(HERE))
sys.path[:0] = [HERE, ROOT]

from mmmlo.utils.process import Parser, run, start

EPOCH = 40_000
CONFIG = 'configs/mae/mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'
VARIANTS = {
    "mmengine's loop and hook": dict(loop='EpochBasedTrainLoop', hook='CheckpointHook'),
    'seeds for each sample': dict(loop='mmmlo.ResumableTrainLoop', hook='CheckpointHook'),
    'and safe checkpoints': dict(loop='mmmlo.ResumableTrainLoop', hook='mmmlo.SafeCheckpointHook'),
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('--config', default=osp.join(ROOT, CONFIG), help='a config of one level')
    parser.add_argument('--images', type=int, default=2560, help='images in a timed epoch')
    parser.add_argument('--repeats', type=int, default=5, help='runs of each kind')
    parser.add_argument('--workers', type=int, help="workers of the loader; default: the config's")
    parser.add_argument('--json', metavar='FILE', help='write all figures here')
    return parser.read(repeats=1)


start(__name__, parse_args)

from measure import progress, synchronize, time_call, write_json
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmlo.launch.config import load_config, resolve_loaders


class Clock(Hook):
    """Reads the time at the ends of epochs; of two, one runs before all other hooks and one after them."""

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.starts: list[float] = []
        self.ends: list[float] = []

    def before_train_epoch(self, runner: Runner) -> None:
        """Read."""
        self.starts.append(self._now())

    def after_train_epoch(self, runner: Runner) -> None:
        """Read."""
        self.ends.append(self._now())

    @staticmethod
    def _now() -> float:
        synchronize(get_device())
        return time.perf_counter()


def prepare(args: argparse.Namespace) -> Config:
    """The config, of two short epochs without validation."""
    cfg = load_config(args.config)
    loader = cfg.train_dataloader
    leaf = loader.dataset.dataset
    if not osp.isdir(leaf.data_root):
        images = dict(type='mmmlo.SyntheticImages', per_class=EPOCH // 10, size=32, pipeline=leaf.pipeline)
        loader.dataset.dataset = images
        print(f'{leaf.data_root} is not there: synthetic images', file=sys.stderr)
    for kind in ('val', 'test'):
        for part in ('cfg', 'dataloader', 'evaluator'):
            cfg[f'{kind}_{part}'] = None
    loader.num_batch_per_epoch = args.images // loader.batch_size
    if args.workers is not None:
        loader.num_workers = args.workers
    resolve_loaders(cfg)
    cfg.train_cfg.max_epochs = 2
    cfg.log_level = 'ERROR'
    return cfg


def train(cfg: Config, loop: str, hook: str, folder: str) -> tuple[float, float]:
    """Train; the seconds of the second epoch, and of its checkpoint."""
    cfg = copy.deepcopy(cfg)
    cfg.train_cfg.type = loop
    cfg.default_hooks.checkpoint.type = hook
    cfg.work_dir, cfg.experiment_name = folder, osp.basename(folder)
    runner = Runner.from_cfg(cfg)
    first, last = Clock(0), Clock(100)
    runner.register_hook(first)
    runner.register_hook(last)
    runner.train()
    return first.ends[1] - first.starts[1], last.ends[1] - first.ends[1]


def loading(cfg: Config, repeats: int, images: int) -> tuple[float, float]:
    """Microseconds to load an image in the main process, without seeds and with; the fastest of several rounds."""
    loader_cfg = copy.deepcopy(cfg.train_dataloader)
    loader_cfg.update(num_workers=0, persistent_workers=False, num_batch_per_epoch=images // loader_cfg.batch_size)
    loader_cfg.pop('prefetch_factor', None)
    plain = Runner.build_dataloader(loader_cfg, seed=0)
    seeded_cfg = copy.copy(loader_cfg)
    seeded_cfg.dataset = dict(type='mmmlo.SeededDataset', dataset=loader_cfg.dataset)
    seeded_cfg.sampler = dict(type='mmmlo.ResumableSampler', sampler=loader_cfg.sampler)
    loaders = (plain, Runner.build_dataloader(seeded_cfg, seed=0))
    best = [float('inf')] * 2
    for _ in range(repeats):
        for i, loader in enumerate(loaders):
            best[i] = min(best[i], time_call(lambda loader=loader: [None for _ in loader], 'cpu'))
    count = images // loader_cfg.batch_size * loader_cfg.batch_size
    return best[0] / count * 1e6, best[1] / count * 1e6


def main() -> None:
    """Time all in turn and print a table."""
    args = parse_args()
    cfg = prepare(args)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(args.repeats):
            for name, settings in VARIANTS.items():
                place = osp.join(folder, f'{settings["loop"]}_{settings["hook"]}_{repeat}')
                seconds[name].append(train(cfg, folder=place, **settings))
            progress(f'run {repeat + 1} of {args.repeats}')
    print(file=sys.stderr)

    iterations = args.images // cfg.train_dataloader.batch_size
    epoch = EPOCH // cfg.train_dataloader.batch_size
    rows = []
    for name, times in seconds.items():
        training, saving = (statistics.median(column) for column in zip(*times))
        row = dict(name=name, ms_an_iteration=1000 * training / iterations, ms_a_checkpoint=1000 * saving)
        rows.append(row | dict(seconds_an_epoch=training / iterations * epoch + saving))
    print(f'{"":26}{"ms an iteration":>17}{"(min-max)":>18}{"ms a checkpoint":>17}{"s an epoch":>12}{"ratio":>8}')
    for row in rows:
        row['ratio'] = row['seconds_an_epoch'] / rows[0]['seconds_an_epoch']
        each = [1000 * training / iterations for training, _ in seconds[row['name']]]
        spread = f'({min(each):.1f}-{max(each):.1f})'
        print(
            f'{row["name"]:26}{row["ms_an_iteration"]:17.2f}{spread:>18}{row["ms_a_checkpoint"]:17.0f}'
            f'{row["seconds_an_epoch"]:12.1f}{row["ratio"]:8.3f}'
        )
    without, with_seeds = loading(cfg, max(args.repeats, 5), args.images)
    image = 1000 * rows[0]['ms_an_iteration'] / cfg.train_dataloader.batch_size
    print(
        f'An image takes {without:.0f} us to load and {with_seeds:.0f} with seeds, on one core without workers; the '
        f'difference is {100 * (with_seeds - without) / image:.2f} % of the {image:.0f} us that it takes in training'
    )
    figures = dict(loading_us=without, seeded_loading_us=with_seeds, training_us=image, rows=rows)
    write_json(args.json, args, figures)


if __name__ == '__main__':
    run(main)
