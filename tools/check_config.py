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

sys.path.insert(0, osp.dirname(osp.dirname(osp.abspath(__file__))))

# mmpretrain prints to the standard output while it is imported.
with redirect_stdout(sys.stderr):
    from mmengine.config import DictAction

    from mmmlo.launch.config import load_config
    from mmmlo.preflight.check_config import find_config_problems
    from mmmlo.utils.text import describe_error


def main(argv: Sequence[str] | None = None) -> int:
    """Check and tell.

    Returns:
        int: The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config file')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings, as in a.b=1 c="[x,y]"')
    args = parser.parse_args(argv)
    try:
        with redirect_stdout(sys.stderr):
            problems = find_config_problems(load_config(args.config, args.cfg_options))
    except Exception as error:  # a config is Python
        parser.error(f'{args.config} cannot be read: {describe_error(error)}')
    for problem in problems:
        print(f'{"warning" if problem.warning else "PROBLEM"}: {problem}')
    if any(not problem.warning for problem in problems):
        return 1
    print(f'{args.config}: nothing wrong was found.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
