#!/usr/bin/env python
"""Estimate in short runs what weights of the loss could win on your data, before you spend on learned masks.

    python tools/analysis_tools/mask_potential.py configs/mae/mae_vit-mini-p4_1xb128-coslr-50e_image-folder.py --steps 600

Trains the config of a MAE for --steps steps with each kind of weights and seed, and compares linear probes: D_tr teaches,
D_val is asked, and the test split stays unseen. Masks are random in all runs.

    none      MAE as it is
    contrast  the 30 % of patches of most contrast count 11 times; no labels
    labels    those that an attention, taught by the labels of D_tr, finds best (mmmlo.GuidedMAE)
    worth     those that the data calls worthy: what weights can win at most; where samples have a `worth`, H x W

Writes potential.json after every run, and does not repeat what stands in it. docs/when_masks_pay.md says how to read it.

Exit status: 0; or 2 for wrong usage.
"""

import argparse
import json
import math
import os.path as osp
import sys
from collections.abc import Mapping, Sequence

sys.path.insert(0, osp.dirname(osp.dirname(osp.dirname(osp.realpath(__file__)))))

from mmmlo.utils.process import Parser, run, start

WEIGHTS = ('none', 'contrast', 'labels', 'worth')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('config', metavar='CONFIG', help='of a MAE with labelled images, as those in configs/mae')
    parser.add_argument('--steps', type=int, default=600, help='pretrain steps of each run; default: 600')
    parser.add_argument('--weights', nargs='+', choices=WEIGHTS[1:], default=['contrast', 'labels'], metavar='KIND',
        help=f'beside none: of {", ".join(WEIGHTS[1:])}; default: contrast labels')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1], help='default: 0 1')
    parser.add_argument('--out', metavar='DIR', help='default: work_dirs/potential/<name of the config>')
    parser.add_cfg_options(default={}, help='settings of all runs')
    return parser.read(argv, steps=20)


start(__name__, parse_args)

from mmengine.config import Config
from mmengine.runner import Runner

from mmmlo.engine.loops.loader_settings import with_settings_of
from mmmlo.evaluation.linear_heads import quick_linear_top1
from mmmlo.evaluation.results import Metric
from mmmlo.launch.config import build_runner, load_config, resolve_loaders
from mmmlo.launch.shrink import shorten
from mmmlo.utils.config import dataset_leaves, use_levels
from mmmlo.utils.errors import SettingError
from mmmlo.utils.markdown import markdown_table
from mmmlo.utils.whole_file import write_whole

TOP_WEIGHTS = dict(guided_share=0.0, weighting=dict(type='mmmlo.TopWeights'))


def with_weights(cfg: Config, kind: str, num_classes: int) -> None:
    """Change a MAE's config to one kind of weights."""
    model, patch_size = cfg.model, cfg.model.backbone.patch_size
    if kind == 'contrast':
        model.update(masker=dict(type='mmmlo.ContrastMasker', patch_size=patch_size), **TOP_WEIGHTS)
    elif kind == 'worth':
        model.type = 'mmmlo.OracleMAE'
        for _, dataset in dataset_leaves(cfg.train_dataloader.dataset, 'train_dataloader.dataset'):
            dataset.pipeline[-1].meta_keys = (*dataset.pipeline[-1].get('meta_keys', ()), 'worth')
    elif kind == 'labels':
        head = dict(type='mmpretrain.LinearClsHead', num_classes=num_classes, in_channels=96)
        masker = dict(type='mmmlo.AttentionMasker', patch_size=patch_size, dims=96, margin=patch_size // 2, head=head)
        model.update(type='mmmlo.GuidedMAE', masker=masker, **TOP_WEIGHTS)
        masking = dict(optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05), steps=4)
        use_levels(cfg, dict(masking=masking), dict(masking=dict(batch_size=64, dataset=cfg.finetune_dataset)))


def measure(cfg: Config, seed: int) -> float:
    """Train by a config, and return the linear top-1 on D_val in per cent."""
    runner = build_runner(cfg)
    runner.train()
    bank = with_settings_of(cfg.val_dataloader, cfg.val_cfg.bank_dataloader)
    return quick_linear_top1(runner.model, *map(Runner.build_dataloader, (bank, cfg.val_dataloader)), seed=seed)


def verdict(found: Mapping[str, Metric]) -> str:
    """Say in words which weights won over none by more than twice what seeds differ by."""
    base, lines = found['none'], []
    for kind, metric in found.items():
        if kind == 'none':
            continue
        gains = [value - other for value, other in zip(metric.values, base.values)]
        gain = Metric(gains, 'points')
        if gain.std is None:
            lines.append(f'- {kind}: {gain.mean:+.1f} points with one seed; run more to know.')
        elif gain.mean > 2 * gain.std / math.sqrt(len(gains)) and gain.mean > 0.5:
            lines.append(f'- {kind}: {gain.mean:+.1f} points, more than seeds differ: worth a long run.')
        else:
            lines.append(f'- {kind}: {gain.mean:+.1f} points, no more than seeds differ: leave the loss as it is.')
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, measure, and print what came out."""
    args = parse_args(argv)
    base = load_config(args.config)
    base.merge_from_dict(args.cfg_options)
    if base.model.type != 'mmmlo.MAE' or 'masker' in base.model:
        raise SettingError(f'{args.config}: model.type is {base.model.type}, not plain mmmlo.MAE; use one of configs/mae')
    resolve_loaders(base)
    name = osp.splitext(osp.basename(args.config))[0]
    out = osp.abspath(args.out or osp.join('work_dirs', 'potential', name))
    loader = Runner.build_dataloader(base.train_dataloader)
    num_classes = len(loader.dataset.metainfo['classes'])
    epochs = math.ceil(args.steps / len(loader))

    path = osp.join(out, 'potential.json')
    settings = dict(config=name, steps=args.steps, options={key: repr(value) for key, value in args.cfg_options.items()})
    known: dict[str, dict[str, float]] = {}
    if osp.isfile(path):
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
        if content['settings'] != settings:
            raise SettingError(f'{path} is of other settings, {content["settings"]}; name another --out')
        known = content['linear_top1']
    kinds = ['none', *dict.fromkeys(args.weights)]
    for seed in args.seeds:
        for kind in kinds:
            if str(seed) in known.get(kind, {}):
                continue
            cfg = Config(base.to_dict(), filename=base.filename)
            with_weights(cfg, kind, num_classes)
            shorten(cfg, epochs)
            cfg.work_dir, cfg.randomness = osp.join(out, f'{kind}_seed_{seed}'), dict(seed=seed)
            cfg.experiment_name = f'{name}_{kind}_{seed}'
            known.setdefault(kind, {})[str(seed)] = round(measure(cfg, seed), 2)
            write_whole(path, json.dumps(dict(settings=settings, linear_top1=known), indent=2))
            print(f'{kind}, seed {seed}: linear {known[kind][str(seed)]:.2f}', flush=True)
    found = {kind: Metric([known[kind][str(seed)] for seed in args.seeds], 'per cent') for kind in kinds}
    print('\n' + markdown_table([('weights', 'linear top-1 on D_val'), *((kind, str(m)) for kind, m in found.items())]))
    print(f'\n{verdict(found)}\n{args.steps} steps, seeds {", ".join(map(str, args.seeds))}. Written: {osp.relpath(path)}')


if __name__ == '__main__':
    run(main, status=2)
