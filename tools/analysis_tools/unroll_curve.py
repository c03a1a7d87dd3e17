#!/usr/bin/env python
"""Draw how far a masker must look: what an encoder is worth after so many more steps under each kind of masks and weights.

    name=vit-nano-p4_1xb128-coslr-188e_cluttered-digits
    python tools/analysis_tools/unroll_curve.py configs/mae/mae_$name.py configs/mae/oracle-mae_$name.py \\
        --checkpoint work_dirs/mae_$name/epoch_94.pth --steps 1 4 16 64 256 --seeds 0 1 2

From one checkpoint each config trains on, with the same images, a constant learning rate and no momentum from before. After
each number of steps the closed form of mmmlo.RidgeHead is solved on D_tr and asked for its loss on D_val; the test split is
unseen. A hypergradient looks one step ahead: where a config wins only later, no masker will find it by that.

Writes unroll_curve.json and unroll_curve.png.

Exit status: 0; or 2 for wrong usage.
"""

import argparse
import json
import os.path as osp
import sys
from collections.abc import Mapping, Sequence
from typing import Any

sys.path.insert(0, osp.dirname(osp.dirname(osp.dirname(osp.realpath(__file__)))))

from mmmlo.utils.process import Parser, run, start


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='of one encoder and data; the first is compared with')
    parser.add_argument('--checkpoint', required=True, help='where all begin')
    parser.add_argument('--steps', type=int, nargs='+', default=[1, 4, 16, 64], help='default: 1 4 16 64')
    parser.add_argument('--lr', type=float, default=5e-4, help='of the pretrain level; default: 0.0005')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='of images and masks; default: 0')
    parser.add_argument('--out', default='work_dirs/unroll_curve', metavar='DIR', help='default: work_dirs/unroll_curve')
    parser.add_cfg_options(default={}, help='settings of all configs')
    return parser.read(argv)


start(__name__, parse_args)

import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.nn.functional import cross_entropy, one_hot

from mmmlo.engine.loops.loader_settings import with_settings_of
from mmmlo.evaluation.features import extract_features
from mmmlo.evaluation.results import Metric
from mmmlo.launch.config import build_runner, load_config, resolve_loaders
from mmmlo.models import RidgeHead
from mmmlo.utils.config import is_multi_level, use_levels
from mmmlo.utils.errors import SettingError
from mmmlo.utils.markdown import markdown_table
from mmmlo.utils.whole_file import write_whole
from mmmlo.visualization.results import COLOURS


class MeasureHook(Hook):
    """Measures the encoder at the beginning and after some iterations."""

    def __init__(self, steps: Sequence[int], loaders: Sequence[Mapping]) -> None:
        self.steps = steps
        self.found: dict[int, tuple[float, float]] = {}  # steps -> loss and accuracy in per cent on D_val
        self.loaders = [Runner.build_dataloader(loader) for loader in loaders]

    def before_train(self, runner) -> None:
        """Measure where the run begins."""
        self.measure(runner, 0)

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None) -> None:
        """Measure if it is time."""
        if runner.iter + 1 in self.steps:
            self.measure(runner, runner.iter + 1)

    @torch.no_grad()
    def measure(self, runner: Runner, step: int) -> None:
        """Solve the head on D_tr and ask it on D_val, beside the random numbers of training."""
        with torch.random.fork_rng():
            (bank, labels), (query, truth) = (extract_features(runner.model, loader) for loader in self.loaders)
        classes = int(labels.max()) + 1
        scores = RidgeHead(classes, bank.shape[1]).solve(bank, one_hot(labels, classes).to(bank), query)  # N x K
        accuracy = 100 * (scores.argmax(dim=1) == truth).float().mean()
        self.found[step] = cross_entropy(scores, truth).item(), accuracy.item()


def unrolled(cfg: Config, steps: int, lr: float, checkpoint: str, seed: int) -> Config:
    """The config of a run of so many steps, without schedules, validation and checkpoints."""
    cfg = Config(cfg.to_dict(), filename=cfg.filename)
    if not is_multi_level(cfg):  # as one level, whose loop counts iterations
        use_levels(cfg)
    for key in ('max_epochs', 'val_interval'):
        cfg.train_cfg.pop(key, None)
    cfg.train_cfg.max_iters = steps
    cfg.optim_wrapper.levels.pretrain.optimizer.lr = lr
    for part in ('cfg', 'dataloader', 'evaluator'):
        cfg[f'val_{part}'] = cfg[f'test_{part}'] = None
    cfg.param_scheduler = cfg.default_hooks.checkpoint = None
    cfg.load_from, cfg.randomness = checkpoint, dict(seed=seed)
    return cfg


def horizon(curve: Mapping[int, float], base: Mapping[int, float]) -> int | None:
    """The number of steps from which on a curve stays below another; None if it does not in the end."""
    later = None
    for step in sorted(set(curve) - {0}, reverse=True):
        if curve[step] >= base[step]:
            break
        later = step
    return later


def draw(curves: Mapping[str, Mapping[int, Metric]], path: str) -> None:
    """Draw the mean losses over the steps, and the seeds' deviations as bands."""
    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    for (name, curve), colour in zip(curves.items(), COLOURS):
        steps = [step for step in curve if step]
        means, spreads = ([getattr(curve[step], part) or 0.0 for step in steps] for part in ('mean', 'std'))
        axes.plot(steps, means, 'o-', color=colour, label=name)
        axes.fill_between(steps, *([m + s * d for m, d in zip(means, spreads)] for s in (-1, 1)), color=colour, alpha=0.2)
    axes.axhline(next(iter(curves.values()))[0].mean, color='grey', linestyle=':', label='where all begin')
    axes.set(xscale='log', xlabel='pretrain steps', ylabel='loss of the solved head on D_val')
    axes.set_xticks(steps, map(str, steps))
    axes.minorticks_off()
    figure.legend(loc='outside upper center', fontsize=8)
    figure.savefig(path, dpi=150)


def main(argv: Sequence[str] | None = None) -> None:
    """Train on from one point by each config, and write and print the curves."""
    args = parse_args(argv)
    steps, names = sorted(set(args.steps)), [osp.splitext(osp.basename(path))[0] for path in args.configs]
    if len(set(names)) < len(names):
        raise SettingError(f'CONFIG: the file names of configs must differ, got {names}')
    found: dict[str, list[dict]] = {}
    for path, name in zip(args.configs, names):
        cfg = load_config(path)
        cfg.merge_from_dict(args.cfg_options)
        resolve_loaders(cfg)
        batches = len(Runner.build_dataloader(cfg.train_dataloader))
        length = cfg.train_cfg.get('max_iters') or cfg.train_cfg.max_epochs * batches
        if not 1 <= steps[0] <= steps[-1] <= length:
            raise SettingError(f'--steps must be from 1 to the length of the run of {path}, {length}, got {args.steps}')
        loaders = with_settings_of(cfg.val_dataloader, cfg.val_cfg.bank_dataloader), cfg.val_dataloader
        for seed in args.seeds:
            own = unrolled(cfg, steps[-1], args.lr, args.checkpoint, seed)
            own.work_dir, own.experiment_name = osp.join(args.out, f'{name}_seed_{seed}'), f'{name}_{seed}'
            runner, hook = build_runner(own), MeasureHook(steps, loaders)
            runner.register_hook(hook)
            runner.train()
            found.setdefault(name, []).append(hook.found)
    settings = {key: getattr(args, key) for key in ('configs', 'checkpoint', 'lr', 'seeds')}
    report = dict(settings=settings, loss_and_accuracy=found)
    write_whole(osp.join(args.out, 'unroll_curve.json'), json.dumps(report, indent=2))
    curves = {name: {k: Metric([own[k][0] for own in some]) for k in (0, *steps)} for name, some in found.items()}
    draw(curves, osp.join(args.out, 'unroll_curve.png'))
    rows = [(name, *(f'{metric.mean:.3f}' for metric in curve.values())) for name, curve in curves.items()]
    print('\n' + markdown_table([('loss on D_val after steps', '0', *map(str, steps)), *rows]) + '\n')
    means = {name: {step: metric.mean for step, metric in curve.items()} for name, curve in curves.items()}
    for name in names[1:]:
        first = horizon(means[name], means[names[0]])
        print(f'{name}: ' + ('does not end' if first is None else f'from {first} steps on') + f' below {names[0]}')


if __name__ == '__main__':
    run(main, status=2)
