#!/usr/bin/env python
"""Look whether the data of a config is there, and what its loaders read of it.

    python tools/check_data.py configs/segmentation/linear_vit-mini-p16_camvid.py
    python tools/check_data.py coco data/coco
    python tools/check_data.py folder data/images --leakage --decode

Builds the data sets and pipelines of all loaders of the config, or of one of the project's for a well-known data set in a
folder, loads a sample of each, and says what is there, missing, left out or wrong. docs/data.md shows the layouts.

Exit status: 0 if nothing is wrong, warnings or not; 1 if something is; 2 for wrong usage.
"""

import argparse
import os.path as osp
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from typing import Any

ROOT = osp.dirname(osp.dirname(osp.realpath(__file__)))
sys.path.insert(0, ROOT)

from mmmlo.utils.process import Parser, run, start

# Name -> a config of the project with this data, and the folder that it names.
NAMES = dict(
    ade20k=('segmentation/linear_vit-base-p16_8xb2-amp-40k_ade20k-512x512.py', 'data/ade'),
    camvid=('segmentation/linear_vit-mini-p16_camvid.py', 'data/camvid'),
    cifar10=('mae/mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py', 'data/cifar10'),
    coco=('detection/mask-rcnn_vit-base-p16_8xb8-amp-lsj-184k_coco.py', 'data/coco'),
    folder=('mae/mae_vit-mini-p4_1xb128-coslr-50e_image-folder.py', 'data/images'),
    imagenet=('mae/mae_vit-base-p16_8xb512-amp-coslr-800e_in1k.py', 'data/imagenet'),
    unlabelled=('mae/mae_vit-mini-p4_1xb128-coslr-50e_unlabelled.py', 'data/unlabelled'),
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('data', help=f'a config file, or one of {", ".join(NAMES)}')
    parser.add_argument('root', metavar='DIR', nargs='?', help='with a name, the folder of the data')
    parser.add_argument('--images', type=int, default=200, metavar='N', help='how many images of each loader to load')
    parser.add_argument('--decode', action='store_true', help='load every image, and name those that are broken')
    parser.add_argument('--leakage', action='store_true', help='warn of test images that are training images, by content')
    parser.add_cfg_options()
    args = parser.read(argv, images=1)
    if not args.data.endswith('.py') and args.data not in NAMES:
        parser.error(f'{args.data} is neither a config file nor one of {", ".join(NAMES)}')
    if (args.data in NAMES) != (args.root is not None):
        parser.error('a folder belongs to a name: a config has its own, which --cfg-options can change')
    return args


start(__name__, parse_args)

from mmengine.config import Config

from mmmlo.launch.config import load_config
from mmmlo.preflight.check_data import DataCheck


def move(node: Any, old: str, new: str) -> Any:
    """Put another folder in the place of one that a config names."""
    if isinstance(node, dict):
        return {key: move(value, old, new) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(move(value, old, new) for value in node)
    inside = isinstance(node, str) and f'{node}/'.startswith(f'{old}/')
    return new + node[len(old) :] if inside else node


def main(argv: Sequence[str] | None = None) -> int:
    """Look and tell; return the exit status."""
    args = parse_args(argv)
    name, folder = NAMES.get(args.data, (args.data, ''))
    cfg = load_config(osp.join(ROOT, 'configs', name) if folder else name, args.cfg_options)
    if folder:
        cfg = Config(move(cfg.to_dict(), folder, args.root.rstrip('/')))
    tell, wrong = partial(print, file=sys.stdout), False
    with redirect_stdout(sys.stderr):  # where the frameworks print what they are doing
        check = DataCheck(cfg, tell)
        for problem in check.problems(sys.maxsize if args.decode else args.images):
            tell(f'{"warning" if problem.warning else "PROBLEM"}: {problem}')
            wrong |= not problem.warning
        if args.leakage:
            text = check.leakage()
            tell(f'warning: {text}' if text else '  no test image is a training image too, by content')
    if not wrong:
        print(f'{args.data}: nothing wrong was found.')
    return int(wrong)


if __name__ == '__main__':
    run(main, status=2)
