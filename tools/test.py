#!/usr/bin/env python
"""Test a checkpoint by its config's test loop: kNN top-1 for the pretraining configs, mIoU for mmseg's, AP for mmdet's.

    python tools/test.py CONFIG CHECKPOINT [--show-dir DIR]
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
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder for the log; default: work_dirs/<name of the config>')
    parser.add_argument('--out', help='write metrics (.json, .yml) or, by --out-item pred, predictions (.pkl) here')
    parser.add_argument('--out-item', choices=['metrics', 'pred'], default='metrics', help='what --out writes')
    parser.add_argument('--show-dir', metavar='DIR', help='draw predictions over the images, a picture each, into DIR')
    parser.add_argument('--show-count', type=int, metavar='N', help='draw no more than N of them')
    parser.add_argument('--show-score-thr', type=float, default=0.3, help='draw boxes from this score on; default: 0.3')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='read a checkpoint that holds more than weights and plain values, which runs the code in it',
    )
    parser.add_argument('--amp', action='store_true', help='compute features under autocast')
    parser.add_argument('--no-pin-memory', action='store_true', help='do not pin memory in any loader')
    parser.add_cfg_options()
    parser.add_launcher()
    args = parser.read()
    if args.show_count is not None and not args.show_dir:
        parser.error('--show-count needs --show-dir')
    if args.out and args.out_item == 'pred' and not args.out.endswith(('.pkl', '.pickle')):
        parser.error('--out must end in .pkl for --out-item pred')
    if not osp.isfile(args.checkpoint):
        parser.error(f'checkpoint {args.checkpoint} does not exist')
    return args


start(__name__, parse_args)

import mmengine
from mmengine.evaluator import DumpResults

from mmmlo.engine.hooks import PredictionPictureHook
from mmmlo.launch.config import build_runner, load_config, resolve_loaders, set_work_dir
from mmmlo.launch.data_errors import data_errors
from mmmlo.preflight import VerifyPretrainedHook
from mmmlo.preflight.check_data import check_frameworks
from mmmlo.utils.checkpoints import trust_checkpoints
from mmmlo.utils.errors import SettingError


def main() -> None:
    """Build the runner, test, and write what was asked for."""
    args = parse_args()
    trust_checkpoints(args.trust_checkpoint)
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher, cfg.load_from = args.launcher, args.checkpoint
    set_work_dir(cfg, args.config, args.work_dir)
    if cfg.get('test_cfg') is None:
        raise SettingError(f'{args.config} has no test_cfg: nothing to test')
    if args.amp:
        cfg.test_cfg.fp16 = True
    resolve_loaders(cfg, pin_memory=not args.no_pin_memory)
    check_frameworks(cfg)
    with data_errors(cfg, 'test'):
        runner = build_runner(cfg)
        if not any(isinstance(hook, VerifyPretrainedHook) for hook in runner.hooks):
            runner.register_hook(VerifyPretrainedHook())  # mmengine itself loads whatever matches, also nothing
        if args.out and args.out_item == 'pred':
            runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
        if args.show_dir:
            runner.register_hook(PredictionPictureHook(args.show_dir, args.show_count, args.show_score_thr))
        metrics = runner.test()
    if args.show_dir:
        print(f'Pictures: {args.show_dir}')
    if args.out and args.out_item == 'metrics':
        mmengine.dump(metrics, args.out)


if __name__ == '__main__':
    run(main)
