#!/usr/bin/env python
"""Look whether a data set lies where and as the configs expect it.

    python tools/check_data.py ade20k data/ade
    python tools/check_data.py coco data/coco

Says what is there, what is missing, and opens a sample of each split. docs/data.md shows the layouts.

Exit status: 0 if all is there; 1 if something is missing or broken, or, without --subset, if there are fewer images than in
the official release; 2 for wrong usage.
"""

import argparse
import os.path as osp
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

sys.path.insert(0, osp.dirname(osp.dirname(osp.abspath(__file__))))

# mmpretrain prints to the standard output while it is imported.
with redirect_stdout(sys.stderr):
    from mmmlo.datasets.layouts import LAYOUTS, check_layout


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('data', choices=list(LAYOUTS), help='the data set')
    parser.add_argument('root', metavar='DIR', help='its folder')
    parser.add_argument('--subset', action='store_true', help='a part of the official images is enough')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Look and tell.

    Returns:
        int: The exit status.
    """
    args = parse_args(argv)
    report = check_layout(args.data, args.root)
    for fact in report.facts:
        print(f'  {fact}')
    for text in report.incomplete:
        print(f'{"subset" if args.subset else "INCOMPLETE"}: {text}')
    for text in report.problems:
        print(f'PROBLEM: {text}')
    if report.problems or (report.incomplete and not args.subset):
        return 1
    print(f'{args.root} holds {args.data} as the configs expect it.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
