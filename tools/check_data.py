#!/usr/bin/env python
"""Look whether a data set lies where and as the configs expect it.

    python tools/check_data.py ade20k data/ade
    python tools/check_data.py coco data/coco
    python tools/check_data.py folder data/images --leakage --decode

Says what is there, what is missing, and opens a sample of each split. docs/data.md shows the layouts. --leakage looks for
test images that are training images too, --decode opens every image.

Exit status: 0 if all is there; 1 if something is missing or broken, or, without --subset, if there are fewer images than in
the official release; 2 for wrong usage. What --leakage finds is a warning and does not change it.
"""

import argparse
import os.path as osp
import sys
from collections.abc import Sequence

sys.path.insert(0, osp.dirname(osp.dirname(osp.abspath(__file__))))

from mmmlo.utils.process import Parser, run, start


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('data', help='the data set: ade20k, coco, ..., or folder; docs/data.md has all of them')
    parser.add_argument('root', metavar='DIR', help='its folder')
    parser.add_argument('--subset', action='store_true', help='a part of the official images is enough')
    parser.add_argument('--leakage', action='store_true', help='warn of images that are in both splits, by content')
    parser.add_argument('--decode', action='store_true', help='open every image, and name those that are broken')
    args = parser.read(argv)
    if args.decode and args.data == 'cifar10':
        parser.error('--decode: the images of cifar10 are not files; its archives are compared with their MD5 sums anyway')
    return args


start(__name__, parse_args)

from mmpretrain.datasets import CIFAR10

from mmmlo.datasets.duplicates import broken_images, shared_arrays, shared_files
from mmmlo.preflight.layouts import check_layout, split_files
from mmmlo.utils.text import format_list


def find_leakage(data: str, root: str) -> tuple[int, str]:
    """Look for test images that are training images too.

    Returns:
        tuple[int, str]: Their number, and a sentence about them.
    """
    if data == 'cifar10':
        train, test = ([s['img'] for s in CIFAR10(root, split=split, download=False)] for split in ('train', 'test'))
        pairs = [(f'train #{i}', f'test #{j}') for i, j in shared_arrays(train, test)]
        total, where = len(test), 'the test split'
    else:
        (_, train), (where, test) = split_files(data, root).items()
        pairs, total = shared_files(train, test), len(test)
    examples = format_list([f'{second} is {first}' for first, second in pairs], 3)
    return len(pairs), f'{len(pairs)} of {total} images of {where} are training images too, by content: {examples}'


def main(argv: Sequence[str] | None = None) -> int:
    """Look and tell; return the exit status."""
    args = parse_args(argv)
    report = check_layout(args.data, args.root)
    if args.decode and osp.isdir(args.root):
        broken = list(broken_images(split_files(args.data, args.root)))
        if broken:
            report.problems.append(f'{len(broken)} images cannot be decoded: {format_list(broken, 20)}')
    for fact in report.facts:
        print(f'  {fact}')
    for text in report.incomplete:
        print(f'{"subset" if args.subset else "INCOMPLETE"}: {text}')
    for text in report.problems:
        print(f'PROBLEM: {text}')
    if args.leakage and osp.isdir(args.root) and not (args.data == 'cifar10' and report.problems):
        count, text = find_leakage(args.data, args.root)
        print(f'warning: {text}' if count else '  no test image is a training image too, by content')
    if report.problems or (report.incomplete and not args.subset):
        return 1
    print(f'{args.root} holds {args.data} as the configs expect it.')
    return 0


if __name__ == '__main__':
    run(main, status=2)
