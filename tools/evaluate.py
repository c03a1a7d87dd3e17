#!/usr/bin/env python
"""Evaluate pretrained encoders: kNN, linear probe, few-shot, fine-tuning, segmentation and detection.

    python tools/evaluate.py CHECKPOINT... --data cifar10 --protocols knn linear few-shot finetune
    python tools/evaluate.py CHECKPOINT... --protocols ade20k coco

Writes results.json, results.md and results.png. Features are computed once for a checkpoint and a data set and kept; results
of an earlier call stay, and a protocol that is run again replaces its own. docs/evaluation.md describes the protocols.

Exit status: 0; or 2 for wrong usage, and nothing is written for the checkpoint it was found at.
"""

import argparse
import os
import os.path as osp
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

ROOT = osp.dirname(osp.dirname(osp.realpath(__file__)))
sys.path.insert(0, ROOT)

from mmmlo.utils.process import Parser, run, start

CLASSIFICATION = ('knn', 'linear', 'few-shot', 'finetune')
TRANSFER = ('ade20k', 'coco', 'camvid')  # those of mmmlo.launch.transfer, which is too heavy to import here
PROTOCOLS = (*CLASSIFICATION, *TRANSFER)
CONFIGS = osp.join(ROOT, 'configs')
RECIPES = osp.join(CONFIGS, 'benchmarks')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add('checkpoints', nargs='+', metavar='CHECKPOINT', help='a row of the table each')
    add('--config', metavar='FILE', help='the config that they were pretrained by; default: the one in each checkpoint')
    add(
        '--data',
        metavar='NAME|DIR',
        help=f'of {", ".join(CLASSIFICATION)}: a name such as cifar10 (docs/data.md has all), or a folder with '
        'train/<class>/* and test/<class>/*',
    )
    add('--data-root', metavar='DIR', help='where a data set with a name lies; default: data/NAME')
    add('--protocols', nargs='+', choices=PROTOCOLS, default=['knn', 'linear'], help='default: knn linear')
    add('--out', metavar='DIR', help='default: work_dirs/evaluation/<name of the data>, without --data .../transfer')
    add('--labels', nargs='+', metavar='NAME', help='names of the rows; default: the paths below a common folder')
    add('--token', choices=['mean', 'cls'], default='mean', help='of kNN and few-shot; default: mean')
    add('--seeds', type=int, nargs='+', default=[0, 1, 2], help='of linear probe and fine-tuning; default: 0 1 2')
    add('--shots', type=int, nargs='+', default=[1, 2, 4, 8, 16], metavar='N', help='images a class; default: 1 2 4 8 16')
    add('--draws', type=int, default=3, help='how often the shots are drawn; default: 3')
    add('--finetune-config', metavar='FILE', help='recipe of the fine-tuning; default: by data set and size of the encoder')
    for task in TRANSFER:
        add(f'--{task}-config', metavar='FILE', help=f'recipe of {task}, which says where its data is; default: by encoder')
    add('--transfer-seeds', type=int, nargs='+', default=[0], help=f'of {", ".join(TRANSFER)}; default: 0')
    add('--batch-size', type=int, default=256, help='images in a batch for features; default: 256')
    add('--num-workers', type=int, default=2, help='processes that read images; default: 2')
    add('--amp', action='store_true', help='compute features and fine-tune under bfloat16 autocast')
    add('--no-cache', action='store_true', help='neither keep features nor use those of an earlier call')
    parser.add_launcher()
    args = parser.read(argv, shots=1, draws=1, batch_size=1)
    if args.labels and len(args.labels) != len(args.checkpoints):
        parser.error(f'--labels takes one for each of the {len(args.checkpoints)} checkpoints, got {len(args.labels)}')
    needs_data = [protocol for protocol in args.protocols if protocol in CLASSIFICATION]
    if needs_data and args.data is None:
        parser.error(f'--protocols {" ".join(needs_data)} need --data: a name or a folder of labelled images')
    return args


start(__name__, parse_args)

import torch
from mmengine.device import get_device
from mmengine.dist import get_world_size, init_dist, is_main_process
from mmengine.logging import print_log
from mmengine.registry import init_default_scope

from mmmlo import compat
from mmmlo.evaluation.data import find_data
from mmmlo.evaluation.encoder import Encoder, load_encoder
from mmmlo.evaluation.feature_cache import FeatureCache
from mmmlo.evaluation.protocols import few_shot_protocol, knn_protocol, linear_protocol
from mmmlo.evaluation.results import ProtocolResult, ResultsFile, Row
from mmmlo.evaluation.results_table import to_markdown
from mmmlo.launch.config import load_config
from mmmlo.launch.finetune import finetune, finetune_recipe
from mmmlo.launch.transfer import TRANSFER_TASKS, transfer, transfer_recipe
from mmmlo.utils.text import default_labels
from mmmlo.visualization import plot_results


class Evaluation:
    """One call of this tool."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.data = None if args.data is None else find_data(args.data, args.data_root)
        self.out = args.out or osp.join('work_dirs', 'evaluation', 'transfer' if self.data is None else self.data.name)
        self.config = None if args.config is None else load_config(args.config)
        self.recipe = None if args.finetune_config is None else load_config(args.finetune_config)
        self.file = ResultsFile(osp.join(self.out, 'results.json'))
        folder = None if args.no_cache else osp.join(self.out, 'features')
        self.cache = FeatureCache(folder, args.batch_size, args.num_workers, args.amp, get_device())
        # The main process alone computes on features. The others wait on gloo: NCCL gives up after ten minutes, and gloo too
        # unless it is told how long this may take. Should the main process die, they are told at once.
        self.waiting = None
        if get_world_size() > 1:
            self.waiting = torch.distributed.new_group(backend='gloo', timeout=timedelta(days=30))

    def run(self, path: str, label: str) -> None:
        """Run all protocols on one checkpoint, and write results after each."""
        print_log(f'=== {label} ===', 'current')
        encoder = load_encoder(path, self.config)
        if self.data is not None and self.data.loader != encoder.loader:
            self.data = replace(self.data, loader=encoder.loader)
        features = {}
        asked = set(self.args.protocols) & set(CLASSIFICATION)
        if asked:
            self.data.check(encoder.image_size, max(self.args.shots) if 'few-shot' in asked else 1)
        if asked - {'finetune'}:
            features = self.cache.get(encoder, self.data)
        for protocol in PROTOCOLS:
            if protocol not in self.args.protocols:
                continue
            if protocol in TRANSFER_TASKS or protocol == 'finetune':
                result = self._train(protocol, encoder)  # all processes do
            elif is_main_process():
                result = self._on_features(protocol, encoder, features)
            if is_main_process():
                data = protocol if protocol in TRANSFER_TASKS else self.data.name
                found = dict(method=encoder.method, iteration=encoder.iteration, key_report=encoder.report.counts())
                self.file.update(Row(label, path, encoder.sha256, data=data, protocols={protocol: result}, **found))
                main = result.metrics[result.main]
                print_log(f'{protocol}: {result.main} {main} ({result.seconds:.1f} s)', 'current')
            if self.waiting is not None:
                torch.distributed.barrier(self.waiting)

    def _on_features(self, protocol: str, encoder: Encoder, features: dict) -> ProtocolResult:
        num_classes = len(self.data.build('train', encoder.image_size).metainfo['classes'])
        if protocol == 'knn':
            return knn_protocol(features, num_classes, self.args.token, get_device())
        if protocol == 'few-shot':
            return few_shot_protocol(features, self.args.token, self.args.shots, self.args.draws)
        result, logits = linear_protocol(features, num_classes, self.args.seeds, get_device())
        folder = osp.join(self.out, 'linear')
        os.makedirs(folder, exist_ok=True)
        # For whoever wants to look at single images or compute other metrics.
        name = f'{encoder.sha256[:12]}_{self.data.name}_logits.pth'
        torch.save(dict(logits=logits, labels=features['test'].labels), osp.join(folder, name))
        return result

    def _train(self, protocol: str, encoder: Encoder) -> ProtocolResult:
        args, folder = self.args, osp.join(self.out, protocol)
        how = dict(launcher=args.launcher, num_workers=args.num_workers, amp=args.amp)
        if protocol == 'finetune':
            recipe = self.recipe or load_config(osp.join(RECIPES, finetune_recipe(encoder, self.data)))
            return finetune(encoder, self.data, folder, recipe, args.seeds, **how)
        task = TRANSFER_TASKS[protocol]
        recipe = load_config(getattr(args, f'{protocol}_config') or osp.join(CONFIGS, transfer_recipe(task, encoder)))
        return transfer(task, encoder, folder, recipe, args.transfer_seeds, **how)

    def report(self) -> None:
        """Write table and picture of all results in the file, and print the table."""
        table = to_markdown(self.file.rows)
        with open(osp.join(self.out, 'results.md'), 'w') as file:
            file.write(table)
        plot_results(self.file.rows, osp.join(self.out, 'results.png'))
        print(f'\n{table}\nWritten: {self.out}/results.json, results.md, results.png')


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate every checkpoint, then show what came out."""
    args = parse_args(argv)
    compat.init_dist_on_cpu(args.launcher, {})
    if args.launcher != 'none' and not torch.distributed.is_initialized():
        init_dist(args.launcher)
    init_default_scope('mmpretrain')
    evaluation = Evaluation(args)
    for path, label in zip(args.checkpoints, args.labels or default_labels(args.checkpoints)):
        evaluation.run(path, label)
    if is_main_process():
        evaluation.report()


if __name__ == '__main__':
    run(main, status=2)
