#!/usr/bin/env python
"""Write the page of one or several runs: one HTML file that opens without a network.

    python tools/report.py work_dirs/NAME                         # or a folder of work dirs, such as that of a study
    python tools/report.py work_dirs/mae work_dirs/mlo_mae --out comparison.html
    python tools/report.py work_dirs/NAME --watch                 # anew every 30 seconds, while the run goes on

Runs are read as they are: nothing is imported of them, no checkpoint is opened. docs/report.md says what the page shows.

Exit status: 0; or 2, and nothing written, for wrong usage.
"""

import argparse
import os.path as osp
import sys
import time
from collections.abc import Sequence

sys.path.insert(0, osp.dirname(osp.dirname(osp.realpath(__file__))))

from mmmlo.utils.process import Parser, run, start


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add('work_dirs', nargs='+', metavar='WORK_DIR', help='of a run, or a folder of several')
    add('--out', metavar='FILE', help='the page; default: report.html in the folder, or in the one that several share')
    add('--results', nargs='+', default=[], metavar='FILE', help='results.json, beside those in work dirs')
    add('--watch', nargs='?', type=int, const=30, metavar='SECONDS', help='write it anew until Ctrl-C; default: every 30 s')
    return parser.read(argv, watch=1)


start(__name__, parse_args)

from mmmlo.evaluation.results import ResultsFile
from mmmlo.utils.errors import MissingFileError, SettingError
from mmmlo.visualization.report import find_runs, write_report


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page, once or again and again."""
    args = parse_args(argv)
    folder = osp.commonpath([osp.abspath(path) for path in args.work_dirs])
    out = osp.abspath(args.out or osp.join(folder, 'report.html'))
    if args.out and (osp.isdir(out) or not osp.isdir(osp.dirname(out))):
        raise SettingError(f'--out {args.out}: name a file in a folder that is there')
    for path in args.results:
        if not osp.isfile(path):
            raise MissingFileError(f'--results: there is no file {path}')

    def write(refresh: int | None) -> None:
        runs = find_runs(args.work_dirs)
        write_report(runs, out, [row for path in args.results for row in ResultsFile(path).rows], refresh)

    write(args.watch)
    print(f'Written: {out}', flush=True)
    try:
        while args.watch:
            time.sleep(args.watch)
            write(args.watch)
    except KeyboardInterrupt:
        write(None)


if __name__ == '__main__':
    run(main, status=2)
