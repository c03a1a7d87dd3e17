#!/usr/bin/env python
"""Say what is wrong with a config, without building anything: misspelt keys and fields, unknown types, levels without data.

    python tools/check_config.py configs/mlo_mae/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py

tools/train.py does the same before it trains, unless it is given --no-check. docs/config_check.md lists what is looked at.

Exit status: 0 if nothing is wrong, warnings or not; 1 if something is; 2 for wrong usage, or a config that cannot be read.
"""

import argparse
import os.path as osp
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

sys.path.insert(0, osp.dirname(osp.dirname(osp.realpath(__file__))))

from mmmlo.utils.process import Parser, run, start


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_cfg_options()
    return parser.read(argv)


start(__name__, parse_args)

from mmmlo.launch.config import load_config
from mmmlo.preflight.check_config import find_config_problems


def main(argv: Sequence[str] | None = None) -> int:
    """Check and tell; return the exit status."""
    args = parse_args(argv)
    with redirect_stdout(sys.stderr):
        problems = find_config_problems(load_config(args.config, args.cfg_options))
    for problem in problems:
        print(f'{"warning" if problem.warning else "PROBLEM"}: {problem}')
    if any(not problem.warning for problem in problems):
        return 1
    print(f'{args.config}: nothing wrong was found.')
    return 0


if __name__ == '__main__':
    run(main, status=2)
