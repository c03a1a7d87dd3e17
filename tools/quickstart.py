#!/usr/bin/env python
"""Pretrain on digits that lie on pieces of photographs, with and without weights that find the digits, and compare.

    bash tools/quickstart.sh [--seed 0] [--work-dir work_dirs/quickstart]

All methods take the same number of pretrain steps from the same encoder and decoder, with random masks. They differ in which
patches the loss counts more: none (MAE), those of most contrast, those that a network finds by labels (guided MAE), and
those that truly are the digit's (oracle: what weights can win at most). Writes summary.json, losses.png, masks.png
and report.html.
"""

import argparse
import json
import os.path as osp
import sys
import time

ROOT = osp.dirname(osp.dirname(osp.realpath(__file__)))
sys.path.insert(0, ROOT)

from mmmlo.utils.process import Parser, run, start

EPOCHS = 70  # of 8 steps


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('--seed', type=int, default=0, help='seed of weights, data order and masks')
    parser.add_argument('--work-dir', default='work_dirs/quickstart', help='where everything is written')
    return parser.read()


start(__name__, parse_args)

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmmlo.evaluation.linear_heads import quick_linear_top1
from mmmlo.evaluation.results import Metric, ProtocolResult, Row
from mmmlo.launch.config import build_runner, load_config
from mmmlo.launch.shrink import shorten
from mmmlo.utils.markdown import markdown_table
from mmmlo.visualization import mask_column, plot_losses, plot_mask_table, read_scalars
from mmmlo.visualization.report import find_runs, write_report

NAME = 'vit-nano-p4_1xb128-coslr-188e_cluttered-digits'
CONFIGS = {
    'MAE': f'configs/mae/mae_{NAME}.py',
    'contrast': f'configs/mae/contrast-mae_{NAME}.py',
    'guided MAE': f'configs/guided_mae/guided-mae_{NAME}.py',
    'oracle': f'configs/mae/oracle-mae_{NAME}.py',
}


def linear_top1(model: torch.nn.Module, cfg: Config) -> float:
    """Accuracy of a linear probe on the test split, in per cent."""
    bank = dict(cfg.test_dataloader, dataset=cfg.test_cfg.bank_dataloader.dataset)
    return quick_linear_top1(model, *map(Runner.build_dataloader, (bank, cfg.test_dataloader)))


def build(method: str, seed: int, work_dir: str) -> Runner:
    """The runner of one method, on the config's schedule, shortened."""
    cfg = load_config(osp.join(ROOT, CONFIGS[method]))
    shorten(cfg, EPOCHS)
    cfg.work_dir = osp.join(work_dir, method.replace(' ', '_'))
    cfg.randomness = dict(seed=seed)
    cfg.experiment_name = f'{method}_{time.time_ns()}'
    return build_runner(cfg)


def write_page(work_dir: str, methods: dict[str, dict], steps: int) -> str:
    """Write the page of all methods, with their accuracies, and return its path."""
    rows = []
    for name, found in methods.items():
        result = ProtocolResult('linear', {}, {'top1': Metric([found['linear_top1']])}, 'top1', 0.0)
        rows.append(Row(name, '', name, name, steps, 'cluttered digits', protocols=dict(linear=result)))
    path = osp.join(work_dir, 'report.html')
    write_report(find_runs([osp.join(work_dir, name.replace(' ', '_')) for name in methods]), path, rows)
    return osp.relpath(path)


def main() -> None:
    """Train, evaluate, draw, and print what came out."""
    args = parse_args()
    begin = time.monotonic()
    methods, runs, columns, start_weights = {}, {}, [], None
    for method in CONFIGS:
        print(f'\n=== {method} ===', flush=True)
        runner = build(method, args.seed, args.work_dir)
        runner.model.init_weights()  # the runner would do it when it starts; a second call draws nothing anew
        if start_weights is None:
            start_weights = {name: value.clone() for name, value in runner.model.state_dict().items()}
        else:
            runner.model.load_state_dict(start_weights, strict=False)  # the masker is this method's own
        runner.train()
        runs[method] = read_scalars(osp.join(runner.log_dir, 'vis_data', 'scalars.json'))
        auc = runner.message_hub.get_scalar('train/worth/auc').current()
        methods[method] = dict(linear_top1=round(linear_top1(runner.model, runner.cfg), 2), auc=round(float(auc), 3))
        if method != 'oracle':  # it is told the digit's patches, and has no scores
            batch = next(iter(Runner.build_dataloader(dict(runner.cfg.test_dataloader, batch_size=100))))
            columns.append(mask_column(method, runner.model, batch['inputs'], shown=6, bgr=False))
        else:
            methods[method]['auc'] = 1.0

    plot_losses(runs, osp.join(args.work_dir, 'losses.png'))
    plot_mask_table(columns, osp.join(args.work_dir, 'masks.png'))
    low, high = methods['MAE']['linear_top1'], methods['oracle']['linear_top1']
    for row in methods.values():
        row['share_of_oracle'] = round((row['linear_top1'] - low) / (high - low), 2) if high > low else None
    steps = runner.iter
    summary = dict(
        dataset='cluttered digits', seed=args.seed, pretrain_steps=steps, seconds=round(time.monotonic() - begin, 1),
        methods=methods)
    with open(osp.join(args.work_dir, 'summary.json'), 'w') as file:
        json.dump(summary, file, indent=2)
    page = write_page(args.work_dir, methods, steps)

    rows = [('loss counts more', 'labels', 'score finds the digit (AUC)', 'linear top-1', "share of the oracle's gain")]
    labels = dict(zip(CONFIGS, ('no', 'no', 'yes', "the digits' places")))
    rows += [(name, labels[name], *(str(row[key]) for key in ('auc', 'linear_top1', 'share_of_oracle')))
             for name, row in methods.items()]
    print(
        f'\n{markdown_table(rows)}\n\n'
        f'{summary["seconds"]:.0f} s, {steps} steps each, seed {args.seed}; one seed says little: try --seed 1 and 2.\n'
        f'Pictures and numbers: {osp.relpath(args.work_dir)}/summary.json, losses.png, masks.png\n'
        f'The page of the runs, for a browser: {page}\n'
        'Next, on images of yours: docs/when_masks_pay.md, and\n'
        '      python tools/analysis_tools/mask_potential.py '
        'configs/mae/mae_vit-mini-p4_1xb128-coslr-50e_image-folder.py'
    )


if __name__ == '__main__':
    run(main)
