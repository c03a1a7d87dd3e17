#!/usr/bin/env python
"""Pretrain MAE, MLO-MAE and CL-MAE on scikit-learn's digits and compare them with an untrained encoder.

    bash tools/quickstart.sh [--seed 0] [--work-dir work_dirs/quickstart]

All methods take the same number of pretrain steps from the same encoder and decoder. Writes summary.json, losses.png and
masks.png.
"""

import argparse
import json
import os.path as osp
import sys
import time

ROOT = osp.dirname(osp.dirname(osp.realpath(__file__)))
sys.path.insert(0, ROOT)

from mmmlo.utils.process import Parser, run, start


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
from sklearn.model_selection import StratifiedShuffleSplit

from mmmlo.datasets import SplitDataset
from mmmlo.evaluation import extract_features, fit_logistic_regression, knn_scores
from mmmlo.launch.config import build_runner, load_config
from mmmlo.visualization import mask_column, plot_losses, plot_mask_table, read_scalars

CONFIGS = dict(
    mae='configs/mae/mae_vit-nano-p4_1xb64-coslr-20e_digits.py',
    mlo_mae='configs/mlo_mae/mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py',
    cl_mae='configs/cl_mae/cl-mae_vit-nano-p4_1xb64-coslr-20e_digits.py',
)
# With all 1,438 training images an untrained encoder is almost as good as any: digits differ in their pixels. 200 labels,
# about 20 a class, leave something to learn.
LABELS = dict(part='labelled', fractions=dict(labelled=200 / 1438, rest=1 - 200 / 1438), seed=0)


def evaluate(model: torch.nn.Module, cfg: Config) -> dict:
    """kNN and linear top-1 on the test split from 200 labelled training images, mean patch token."""
    labels = SplitDataset(dataset=cfg.train_features, **LABELS)
    labelled = Runner.build_dataloader(dict(cfg.test_dataloader, dataset=labels))
    test = Runner.build_dataloader(cfg.test_dataloader)
    bank, bank_labels = extract_features(model, labelled)
    query, query_labels = extract_features(model, test)
    predicted = knn_scores(query, bank, bank_labels, num_classes=10).argmax(dim=1)
    held_out = StratifiedShuffleSplit(1, test_size=0.2, random_state=0)  # of the labelled images, to choose C by
    linear, _ = fit_logistic_regression(bank.numpy(), bank_labels.numpy(), held_out)
    return dict(
        knn_top1=round(100 * (predicted == query_labels).double().mean().item(), 2),
        linear_top1=round(100 * float(linear.score(query.numpy(), query_labels.numpy())), 2),
    )


def build(method: str, seed: int, work_dir: str) -> Runner:
    """The runner of one method, with the config's own schedule."""
    cfg = load_config(osp.join(ROOT, CONFIGS[method]))
    cfg.work_dir = osp.join(work_dir, method)
    cfg.randomness = dict(seed=seed)
    cfg.experiment_name = f'{method}_{time.time_ns()}'
    return build_runner(cfg)


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
            methods['untrained'] = dict(**evaluate(runner.model, runner.cfg), pretrain_steps=0)
        else:
            runner.model.load_state_dict(start_weights, strict=False)  # masker and head are this method's own
        runner.train()
        methods[method] = dict(**evaluate(runner.model, runner.cfg), pretrain_steps=runner.iter)
        runs[method] = read_scalars(osp.join(runner.log_dir, 'vis_data', 'scalars.json'))
        batch = next(iter(Runner.build_dataloader(dict(runner.cfg.test_dataloader, batch_size=100))))
        columns.append(mask_column(method, runner.model, batch['inputs'], shown=6))

    plot_losses(runs, osp.join(args.work_dir, 'losses.png'))
    plot_mask_table(columns, osp.join(args.work_dir, 'masks.png'))
    summary = dict(dataset='digits', seconds=round(time.monotonic() - begin, 1), methods=methods)
    with open(osp.join(args.work_dir, 'summary.json'), 'w') as file:
        json.dump(summary, file, indent=2)

    print(f'\n{"method":12}{"kNN top-1":>12}{"linear top-1":>15}{"pretrain steps":>17}')
    for name, row in methods.items():
        print(f'{name:12}{row["knn_top1"]:>12.2f}{row["linear_top1"]:>15.2f}{row["pretrain_steps"]:>17}')
    print(
        f'\n{summary["seconds"]:.0f} s. 359 test images, 200 labelled training images, seed {args.seed}; '
        'one seed says little: try --seed 1 and 2.\n'
        f'Pictures and numbers: {osp.relpath(args.work_dir)}/summary.json, losses.png, masks.png\n'
        'Next: python tools/train.py configs/mlo_mae/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py\n'
        '      (downloads CIFAR-10; README.md says how to use a folder of your own)'
    )


if __name__ == '__main__':
    run(main)
