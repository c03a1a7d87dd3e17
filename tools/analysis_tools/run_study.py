#!/usr/bin/env python
"""Run a study: variants of one config, each with several seeds, trained, evaluated and compared.

    python tools/analysis_tools/run_study.py mask-ratio --data cifar10

Each job is a run of tools/train.py and one of tools/evaluate.py, in a work dir of its own below --out. study.json, study.md
and study.png are written after every job. A study that was interrupted goes on where it was; what is finished is not
repeated. docs/studies.md describes the studies and how to define one.

Exit status: 0; 1 if a job failed, which is reported while the study goes on; 2 for wrong usage; 130 if it was interrupted.
"""

import argparse
import logging
import os.path as osp
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.realpath(__file__))))
sys.path.insert(0, ROOT)

from mmmlo.utils.process import Parser, run, start

TOOLS = osp.join(ROOT, 'tools')
STUDIES = osp.join(ROOT, 'configs', 'ablations', 'studies.json')
PROTOCOLS = ('knn', 'linear', 'few-shot', 'finetune')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('study', metavar='STUDY', help='name of a study; any other word lists them')
    parser.add_argument('--studies', default=STUDIES, metavar='FILE', help='where studies are defined; default: those here')
    parser.add_argument('--config', metavar='FILE', help="config that is varied; default: the study's")
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='default: 0 1 2')
    parser.add_argument('--out', metavar='DIR', help='default: work_dirs/studies/STUDY')
    parser.add_cfg_options(default={}, help='settings of all jobs, as in train_cfg.max_epochs=10')
    parser.add_argument(
        '--data', metavar='NAME|DIR', help='evaluate on it, by tools/evaluate.py; default: compare kNN of the training log'
    )
    parser.add_argument('--data-root', metavar='DIR', help='where a data set with a name lies; default: data/NAME')
    parser.add_argument('--protocols', nargs='+', choices=PROTOCOLS, default=['knn', 'linear'], help='default: knn linear')
    parser.add_argument('--num-workers', type=int, default=2, help='processes that read images to evaluate; default: 2')
    return parser.read(argv)


start(__name__, parse_args)

from mmmlo.evaluation.data import find_data
from mmmlo.launch.config import load_config
from mmmlo.launch.studies import Job, Study, StudyError, StudyFolder, job_config, read_studies
from mmmlo.launch.study_report import plot_study, study_table


def find_study(args: argparse.Namespace) -> Study:
    """The study asked for."""
    studies = read_studies(args.studies)
    if args.study not in studies:
        listed = '\n'.join(f'  {name:12} {len(study.variants)} variants: {study.title}' for name, study in studies.items())
        raise StudyError(f'there is no study {args.study!r} in {args.studies}. There are\n{listed}')
    return studies[args.study]


def open_folder(study: Study, args: argparse.Namespace) -> StudyFolder:
    """The folder of the study, with how its jobs are to be run."""
    evaluation, data = ['--num-workers', str(args.num_workers)], ''
    if args.data is not None:
        data = find_data(args.data, args.data_root).name  # a wrong name is an error before anything is trained
        evaluation += ['--data', args.data, *(['--data-root', args.data_root] if args.data_root else [])]
    config = osp.relpath(osp.abspath(args.config or study.base), ROOT)
    settings = dict(
        study=study.name, title=study.title, config=config if not config.startswith('..') else osp.basename(config),
        options=dict(args.cfg_options), data=args.data, protocols=args.protocols if args.data else [])
    out = osp.abspath(args.out or osp.join('work_dirs', 'studies', study.name))
    return StudyFolder(out, settings, TOOLS, data, evaluation)


def add_jobs(study: Study, args: argparse.Namespace, folder: StudyFolder) -> list[Job]:
    """All jobs, seed by seed, so that a study shows something early; their configs are written out."""
    paths = {variant.label: args.config or variant.base or study.base for variant in study.variants}
    bases = {path: load_config(path) for path in set(paths.values())}
    return [
        folder.add(variant, seed, job_config(bases[paths[variant.label]], variant, args.cfg_options, seed))
        for seed in dict.fromkeys(args.seeds)
        for variant in study.variants
    ]


def write_report(study: Study, folder: StudyFolder) -> str:
    """Write table and picture of what is known so far, and return the table."""
    table = study_table(study, folder.settings, folder.jobs.values())
    with open(osp.join(folder.path, 'study.md'), 'w', encoding='utf-8') as file:
        file.write(table)
    plot_study(study, folder.jobs.values(), osp.join(folder.path, 'study.png'))
    return table


def run_jobs(study: Study, folder: StudyFolder, jobs: Sequence[Job]) -> None:
    """Run what is not finished, and write everything down after each job."""
    waiting = [job for job in jobs if folder.missing(job)]
    finished = len(jobs) - len(waiting)
    if finished:
        print(f'{finished} of {len(jobs)} jobs are finished already', flush=True)
    begin = time.monotonic()
    for i, job in enumerate(waiting, finished + 1):
        folder.run(job)
        write_report(study, folder)
        accuracies = [f'{name} {r["value"]:.2f}' for found in job.results.values() for name, r in found.items()]
        text = f'FAILED: {job.error}' if job.error else ', '.join(accuracies) or 'trained'
        left = (time.monotonic() - begin) / (i - finished) * (len(jobs) - i)
        spent = f'{sum(job.seconds.values()):.0f} s, about {left:.0f} s left'
        print(f'[{i}/{len(jobs)}] {job.label}, seed {job.seed}: {text} ({spent})', flush=True)


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; return the exit status."""
    args = parse_args(argv)
    logging.getLogger('matplotlib').setLevel(logging.WARNING)
    study = find_study(args)
    folder = open_folder(study, args)
    jobs = add_jobs(study, args, folder)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        run_jobs(study, folder, jobs)
    except KeyboardInterrupt:
        print('Interrupted. The same command goes on from here.', file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    print(f'\n{write_report(study, folder)}\nWritten: {folder.path}/study.json, study.md, study.png')
    failed = [job.name for job in jobs if folder.jobs[job.name].error]
    if failed:
        print(f'{len(failed)} jobs failed: {", ".join(failed)}', file=sys.stderr)
    return 1 if failed else 0


if __name__ == '__main__':
    run(main, status=2)
