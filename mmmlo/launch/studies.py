"""Studies: one config, varied in one thing, trained with several seeds and compared; each job in processes of its own."""

import copy
import glob
import json
import math
import os
import os.path as osp
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from operator import getitem
from typing import Any

from filelock import FileLock
from mmengine.config import Config
from mmengine.logging import print_log

from mmmlo.evaluation.results import ResultsFile
from mmmlo.utils.errors import SettingError
from mmmlo.utils.progress import SECONDS
from mmmlo.utils.text import describe_error
from mmmlo.utils.whole_file import write_whole

from .resume import named_checkpoint

__all__ = ['Job', 'Study', 'StudyError', 'StudyFolder', 'Variant', 'job_config', 'read_studies']


class StudyError(SettingError):
    """A study that is not there or cannot be run, or a job of one that failed."""


@dataclass(frozen=True)
class Variant:
    """One value of what a study varies.

    Attributes:
        options (dict): Dotted keys of the config and their values, as ``--cfg-options`` takes them.
        remove (Sequence[str]): Dotted keys that are taken out of the config, after the options.
        x (float | None): Its place on a numeric axis. None where there is no order.
        base (str | None): Config file in place of the study's.
    """

    label: str
    options: dict[str, Any] = field(default_factory=dict)
    remove: Sequence[str] = ()
    x: float | None = None
    base: str | None = None


@dataclass(frozen=True)
class Study:
    """Variants of one config.

    Attributes:
        base (str): The config file that is varied.
        x (str): Label of the numeric axis; '' where there is none, and variants are drawn as bars.

    Raises:
        StudyError: Labels are not unique as names of folders, or have no place on the axis.
    """

    name: str
    title: str
    base: str
    variants: list[Variant]
    x: str = ''

    def __post_init__(self) -> None:
        labels = [variant.label for variant in self.variants]
        if len(labels) < 2 or len({*map(_folder_name, labels)} - {''}) < len(labels):
            raise StudyError(f'study {self.name} needs at least two variants with labels that name folders, got {labels}')
        without = [variant.label for variant in self.variants if variant.x is None]
        if self.x and without:
            raise StudyError(f'study {self.name} has a numeric axis, but {without} have no x')


def _folder_name(label: str) -> str:
    return re.sub(r'[^A-Za-z0-9_.-]+', '-', label).strip('.')


def read_studies(path: str) -> dict[str, Study]:
    """Read the definitions of studies.

    Args:
        path (str): A JSON file: ``base``, a config relative to the file, and ``studies``, name -> ``title``, ``variants``,
            and, if wanted, ``base`` and ``x``. The keys are those of :class:`Study` and :class:`Variant`.

    Raises:
        StudyError: There is no such file, or something else in it.
    """
    studies = {}
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
        folder = osp.dirname(osp.abspath(path))
        for name, given in content['studies'].items():
            base = osp.normpath(osp.join(folder, given.get('base', content.get('base'))))
            variants = [Variant(**variant) for variant in given['variants']]
            variants = [replace(v, base=v.base and osp.normpath(osp.join(folder, v.base))) for v in variants]
            studies[name] = Study(name, **{**given, 'base': base, 'variants': variants})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(f'{path} is no file of studies ({describe_error(error)})') from error
    return studies


def job_config(base: Config, variant: Variant, options: Mapping[str, Any] | None = None, seed: int = 0) -> Config:
    """Make the config of one job: the base, with the options of all jobs, then the variant's, and the seed of the run.

    Raises:
        StudyError: An option does not fit the config, or what should be removed is not there.
    """
    cfg = copy.deepcopy(base)
    try:
        for some in (options or {}, variant.options):
            cfg.merge_from_dict(copy.deepcopy(dict(some)))
        for key in variant.remove:
            *parents, last = key.split('.')
            del reduce(getitem, parents, cfg._cfg_dict)[last]
    except (TypeError, KeyError, AttributeError) as error:
        raise StudyError(f'{variant.label}: its settings do not fit {base.filename} ({error})') from error
    cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)
    return cfg


@dataclass
class Job:
    """One variant with one seed, and what is known of it.

    Attributes:
        label (str): Its variant.
        x (float | None): Its place on a numeric axis.
        checkpoint (str): Its last checkpoint, relative to the study's folder; '' until the training has ended.
        scalars (dict[str, float]): The last losses, mask statistics and kNN accuracy of the training log.
        results (dict[str, dict[str, dict]]): Data -> protocol -> ``metric``, ``value`` and ``unit``.
        seconds (dict[str, float]): What 'train' and 'evaluate' took when they were last started.
        error (str): Why it failed; '' if it did not.
    """

    label: str
    x: float | None
    seed: int
    checkpoint: str = ''
    scalars: dict[str, float] = field(default_factory=dict)
    results: dict[str, dict[str, dict]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    error: str = ''

    @property
    def name(self) -> str:
        """Its work dir, below ``runs``."""
        return f'{_folder_name(self.label)}/seed_{self.seed}'


class StudyFolder:
    """The folder of a study, with ``study.json``. Several calls may share it, each with seeds of its own.

    Args:
        path (str): The folder; what is there of an earlier call is read.
        settings (Mapping): What the study is run with: ``study``, its name, ``protocols``, and others for the table.
        tools (str): The folder of ``train.py`` and ``evaluate.py``.
        data (str): Name of the data to evaluate on; '' leaves the evaluation out. Defaults to that.
        evaluation (Sequence[str]): Arguments of ``evaluate.py`` beside checkpoint, protocols, labels and seeds.

    Attributes:
        jobs (dict[str, Job]): By name, those of which something is known.

    Raises:
        StudyError: ``study.json`` is of another study, or something else.
    """

    def __init__(
        self, path: str, settings: Mapping[str, Any], tools: str, data: str = '', evaluation: Sequence[str] = ()
    ) -> None:
        self.path, self.settings, self.tools, self.data, self.evaluation = path, settings, tools, data, evaluation
        self.jobs: dict[str, Job] = {}
        self._read()

    def _read(self) -> None:
        path = osp.join(self.path, 'study.json')
        if not osp.isfile(path):
            return
        try:
            with open(path, encoding='utf-8') as file:
                content = json.load(file)
            study = content['settings']['study']
            self.jobs = {name: Job(**job) for name, job in content['jobs'].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StudyError(f'{path} is no record of a study ({describe_error(error)}); name another --out') from error
        if study != self.settings['study']:
            raise StudyError(f'{path} is of study {study}; name another --out for {self.settings["study"]}')

    def add(self, variant: Variant, seed: int, config: Config) -> Job:
        """Write the config of a job, and return what is known of it.

        Raises:
            StudyError: The job has a config already, and it is another, so that its work dir belongs to other settings.
        """
        job = Job(variant.label, variant.x, seed)
        path = self._config_of(job)
        if not osp.isfile(path):
            os.makedirs(osp.dirname(path), exist_ok=True)
            write_whole(path, config.pretty_text)
        elif Config.fromfile(path).to_dict() != config.to_dict():
            raise StudyError(
                f'{path} was written with other settings than those asked for now. Name another --out, or remove it and '
                f'{osp.join(self.path, "runs", job.name)}'
            )
        return replace(self.jobs.get(job.name, job), x=variant.x)

    def _config_of(self, job: Job) -> str:
        # Not in the work dir, where the runner writes one with paths in it.
        return osp.join(self.path, 'configs', f'{job.name.replace("/", "_")}.py')

    def missing(self, job: Job) -> list[str]:
        """List the steps that a job still needs, of 'train' and the protocols."""
        known = job.results.get(self.data, {})
        return [step for step in ('train', *self.settings['protocols']) if step not in known and step not in job.seconds]

    def run(self, job: Job) -> None:
        """Do what a job still needs, and keep what is then known of it.

        If it failed, ``error`` says how, with the end of the log.
        """
        job.error, work_dir = '', osp.join(self.path, 'runs', job.name)
        os.makedirs(work_dir, exist_ok=True)
        missing = self.missing(job)
        try:
            if 'train' in missing:
                seconds = self._call(work_dir, 'train', [self._config_of(job), '--work-dir', work_dir, '--resume'])
                checkpoint = named_checkpoint(work_dir)
                if checkpoint is None:
                    raise StudyError(f'{work_dir} has no checkpoint after the training; does the config save any?')
                job.checkpoint, job.scalars = osp.relpath(checkpoint, self.path), _last_scalars(work_dir)
                job.seconds['train'] = seconds
            protocols = [step for step in missing if step != 'train']
            if protocols:
                self._evaluate(work_dir, job, protocols)
        except (OSError, ValueError) as error:
            job.error = str(error)
        with FileLock(osp.join(self.path, '.study.json.lock')):
            self._read()  # another call may have written to it
            self.jobs[job.name] = job
            jobs = {name: asdict(job) for name, job in self.jobs.items()}
            text = json.dumps(dict(format=1, settings=self.settings, jobs=jobs), indent=2, ensure_ascii=False)
            write_whole(osp.join(self.path, 'study.json'), f'{text}\n')

    def _evaluate(self, work_dir: str, job: Job, protocols: Sequence[str]) -> None:
        out = osp.join(work_dir, 'evaluation', self.data)
        # One seed: the spread of interest is that of the pretraining.
        arguments = [
            osp.join(self.path, job.checkpoint), *self.evaluation, '--protocols', *protocols, '--out', out,
            '--labels', f'{job.label}, seed {job.seed}', '--seeds', str(job.seed),
        ]
        job.seconds['evaluate'] = self._call(work_dir, 'evaluate', arguments)
        row = ResultsFile(osp.join(out, 'results.json')).rows[-1]
        for protocol in protocols:
            name = row.protocols[protocol].main
            metric = row.protocols[protocol].metrics[name]
            job.results.setdefault(self.data, {})[protocol] = dict(metric=name, value=metric.mean, unit=metric.unit)

    def _call(self, work_dir: str, tool: str, arguments: Sequence[str]) -> float:
        """Run a tool, its output in ``<tool>.log`` of the work dir, and return the seconds that it took."""
        log, begin = osp.join(work_dir, f'{tool}.log'), time.perf_counter()
        command = [sys.executable, osp.join(self.tools, f'{tool}.py'), *arguments]
        with open(log, 'ab') as output:
            place = output.tell()
            # In a session of its own, so that Ctrl-C does not reach it twice.
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                status = self._wait(process, tool, log)
            except KeyboardInterrupt:
                process.terminate()  # upon which a training saves and ends
                process.wait()
                raise
        if status:
            with open(log, encoding='utf-8', errors='replace') as text:
                text.seek(place)
                end = ''.join(text.readlines()[-15:]).strip()
            name = osp.relpath(log, self.path)
            raise StudyError(f'tools/{tool}.py ended with status {status}; the end of {name}:\n{end}')
        return round(time.perf_counter() - begin, 1)

    def _wait(self, process: subprocess.Popen, tool: str, log: str) -> int:
        """Wait for a tool, and repeat the last line of its log every 30 seconds."""
        while True:
            try:
                return process.wait(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                with open(log, encoding='utf-8', errors='replace') as text:
                    last = ''.join(deque(text, maxlen=1)).strip()
                print_log(f'tools/{tool}.py: {last}', 'current')


def _last_scalars(work_dir: str) -> dict[str, float]:
    """The last losses, mask statistics and kNN accuracy that a run logged, over all its starts, where they are finite."""
    found: dict[str, float] = {}
    for path in sorted(glob.glob(osp.join(glob.escape(work_dir), '*', 'vis_data', 'scalars.json'))):
        with open(path, encoding='utf-8') as file:
            for line in file:
                with suppress(ValueError):  # a line that a kill has cut
                    found |= {n: v for n, v in json.loads(line).items() if 'loss' in n or n.startswith(('masks/', 'knn/'))}
    return {n: round(float(v), 6) for n, v in found.items() if isinstance(v, (int, float)) and math.isfinite(v)}
