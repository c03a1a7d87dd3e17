#!/usr/bin/env python
"""Train a model from a config.

    python tools/train.py configs/mlo_mae/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py
"""

import argparse
import os.path as osp
import sys

sys.path.insert(0, osp.dirname(osp.dirname(osp.realpath(__file__))))

from mmmlo.utils.process import Parser, run, start


def parse_args() -> argparse.Namespace:
    """Read the command line; the options are mmpretrain's."""
    parser = Parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints; default: work_dirs/<name of the config>')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from this checkpoint; without a value, from the newest whole one in the work dir, if there is one',
    )
    parser.add_argument(
        '--resume-settings',
        choices=['checkpoint', 'config'],
        help='whose rates and schedules a resumed run has if they differ; default: an error if they do',
    )
    parser.add_argument(
        '--backbone',
        metavar='CHECKPOINT',
        help='initialize model.backbone from this checkpoint: its backbone.* keys, or all of a file with an encoder alone',
    )
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='read checkpoints that hold more than weights and plain values, which runs the code in them',
    )
    parser.add_argument('--amp', action='store_true', help='bfloat16 mixed precision on every level')
    parser.add_argument('--compile', action='store_true', help='compile encoder and decoder blocks (mmmlo.CompileHook)')
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate while training')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale every level's learning rate by the ratio of the batch size to auto_scale_lr.base_batch_size",
    )
    parser.add_argument('--no-check', action='store_true', help='do not look for misspelt keys and fields in the config')
    parser.add_argument('--no-pin-memory', action='store_true', help='do not pin memory in any loader')
    parser.add_argument('--no-persistent-workers', action='store_true', help='start workers anew in each epoch')
    parser.add_cfg_options()
    parser.add_launcher()
    return parser.read()


start(__name__, parse_args)

from mmengine.config import Config
from mmengine.runner import Runner

from mmmlo.launch.config import (
    build_runner,
    enable_amp,
    load_config,
    resolve_loaders,
    set_backbone,
    set_work_dir,
)
from mmmlo.launch.data_errors import data_errors
from mmmlo.launch.resume import resolve_resume
from mmmlo.launch.resume_settings import ResumeSettingsHook
from mmmlo.preflight.check_config import check_config
from mmmlo.preflight.check_data import check_transfer
from mmmlo.utils.checkpoints import trust_checkpoints
from mmmlo.utils.errors import SettingError


def merge_args(cfg: Config, args: argparse.Namespace) -> Config:
    """Write the command line's options into the config."""
    cfg.launcher = args.launcher
    set_work_dir(cfg, args.config, args.work_dir)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.backbone:
        set_backbone(cfg, args.backbone)
    if args.amp:
        enable_amp(cfg)
    if args.compile:
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or ()), dict(type='mmmlo.CompileHook')]
    resolve_resume(cfg, args.resume)
    if args.auto_scale_lr:
        if 'auto_scale_lr' not in cfg:
            raise SettingError(f'{args.config} has no auto_scale_lr.base_batch_size for --auto-scale-lr to scale from')
        cfg.auto_scale_lr.enable = True
    resolve_loaders(cfg, not args.no_pin_memory, not args.no_persistent_workers)
    return cfg


def main() -> None:
    """Build the runner and train."""
    args = parse_args()
    trust_checkpoints(args.trust_checkpoint)
    cfg = load_config(args.config, args.cfg_options)
    if not args.no_check:
        check_config(cfg)
    cfg = merge_args(cfg, args)
    check_transfer(cfg)
    with data_errors(cfg):
        runner = build_runner(cfg)
        if isinstance(runner, Runner):
            runner.register_hook(ResumeSettingsHook(args.resume_settings))
        runner.train()


if __name__ == '__main__':
    run(main)
