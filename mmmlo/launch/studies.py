"""Studies: one config, varied in one thing, trained with several seeds and compared; each job in processes of its own."""

import copy
import glob
import json
import math
import os
import os.path as osp
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mmengine.config import Config

from mmmlo.evaluation.data import NAMED_DATA
from mmmlo.evaluation.results import ResultsFile
from mmmlo.utils.errors import SettingError
from mmmlo.utils.whole_file import write_whole

__all__ = ['Job', 'JobRecord', 'JobRunner', 'Study', 'StudyError', 'StudyRecord', 'Variant', 'job_config', 'read_studies']

_FORMAT = 1  # of study.json
_LOG_LINES = 15  # of a failed process, for the message


class StudyError(SettingError):
    """A study that is not there or cannot be run, or a job of one that failed."""


@dataclass(frozen=True)
class Variant:
    """One value of what a study varies.

    Attributes:
        label (str): What tables and pictures call it.
        options (dict): Dotted keys of the config and their values, as ``--cfg-options`` takes them.
        remove (Sequence[str]): Dotted keys that are taken out of the config, after the options.
        x (float | None): Its place on a numeric axis. None where there is no order.
    """

    label: str
    options: dict[str, Any] = field(default_factory=dict)
    remove: Sequence[str] = ()
    x: float | None = None


@dataclass(frozen=True)
class Study:
    """Variants of one config.

    Attributes:
        name (str): What the command line calls it.
        title (str): What it asks.
        base (str): The config file that is varied.
        variants (list[Variant]): At least two.
        x (str): Label of the numeric axis; '' where there is none, and variants are drawn as bars.
        plot (Sequence[str]): What the picture shows: 'accuracy', or names of the training log's scalars.

    Raises:
        StudyError: Names or labels cannot be those of folders, are not unique, or have no place on the axis.
    """

    name: str
    title: str
    base: str
    variants: list[Variant]
    x: str = ''
    plot: Sequence[str] = ('accuracy', 'masks/overlap')

    def __post_init__(self) -> None:
        labels = [variant.label for variant in self.variants]
        for name in (self.name, *(label.replace('/', '-') for label in labels)):  # as folders are called
            if '/' in name or os.sep in name or not name.strip('.'):
                raise StudyError(f'{name!r} cannot name a folder')
        if len(labels) < 2 or len(set(labels)) < len(labels):
            raise StudyError(f'study {self.name} needs at least two variants, each with a label of its own, got {labels}')
        without = [variant.label for variant in self.variants if variant.x is None]
        if self.x and without:
            raise StudyError(f'study {self.name} has a numeric axis, but {without} have no x')


def read_studies(path: str) -> dict[str, Study]:
    """Read the definitions of studies.

    Args:
        path (str): A JSON file: ``base``, a config relative to the file, and ``studies``, name -> ``title``, ``variants``,
            and, if wanted, ``base``, ``x`` and ``plot``. The keys are those of :class:`Study` and :class:`Variant`.

    Returns:
        dict[str, Study]: By name.

    Raises:
        StudyError: There is no such file, or something else in it.
    """
    studies = {}
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
        for name, given in content['studies'].items():
            base = osp.normpath(osp.join(osp.dirname(osp.abspath(path)), given.get('base', content.get('base'))))
            variants = [Variant(**variant) for variant in given['variants']]
            studies[name] = Study(name, **{**given, 'base': base, 'variants': variants})
    except FileNotFoundError as error:
        raise StudyError(f'{path} does not exist') from error
    except StudyError as error:
        raise StudyError(f'{path}: {error}') from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(f'{path} is no file of studies ({type(error).__name__}: {error})') from error
    return studies


def job_config(base: Config, variant: Variant, options: Mapping[str, Any] | None = None, seed: int | None = None) -> Config:
    """Make the config of one job: the base, with the options of all jobs, then the variant's, and the seed of the run.

    Raises:
        StudyError: An option does not fit the config, or what should be removed is not there.
    """
    cfg = copy.deepcopy(base)
    for some in (options or {}, variant.options):
        try:
            cfg.merge_from_dict(copy.deepcopy(dict(some)))
        except (TypeError, KeyError, AttributeError) as error:
            raise StudyError(f'{variant.label}: the options {dict(some)} do not fit {base.filename} ({error})') from error
    for key in variant.remove:
        parent, _, last = key.rpartition('.')
        node: Any = cfg
        for name in filter(None, parent.split('.')):
            node = node.get(name) if isinstance(node, (Config, dict)) else None
        if not isinstance(node, (Config, dict)) or last not in node:
            raise StudyError(f'{variant.label}: {base.filename} has no {key} to remove')
        node.pop(last)
    if seed is not None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)
    return cfg


@dataclass
class Job:
    """One variant with one seed.

    Attributes:
        variant (Variant): What is varied.
        seed (int): Its seed.
        folder (str): Folder of the study.
        config (Config): Its config.
    """

    variant: Variant
    seed: int
    folder: str
    config: Config

    def __post_init__(self) -> None:
        self.name = f'{re.sub(r"[^A-Za-z0-9_.-]+", "-", self.variant.label)}/seed_{self.seed}'
        self.work_dir = osp.join(self.folder, 'runs', self.name)
        # Not in the work dir, where the runner writes one with paths in it.
        self.config_file = osp.join(self.folder, 'configs', f'{self.name.replace("/", "_")}.py')

    def write_config(self) -> None:
        """Write the config out, or check that the one of an earlier call is the same.

        Raises:
            StudyError: It is another, so that what is in the work dir belongs to other settings.
        """
        if osp.isfile(self.config_file):
            if Config.fromfile(self.config_file).to_dict() != self.config.to_dict():
                raise StudyError(
                    f'{self.config_file} was written with other settings than those asked for now. Name another --out, or '
                    f'remove it together with {self.work_dir}'
                )
            return
        os.makedirs(osp.dirname(self.config_file), exist_ok=True)
        write_whole(self.config_file, self.config.pretty_text)

    def checkpoint(self) -> str:
        """Find the last checkpoint, by its name alone: the folder may have been moved.

        Raises:
            StudyError: There is none.
        """
        pointer = osp.join(self.work_dir, 'last_checkpoint')
        if osp.isfile(pointer):
            with open(pointer, encoding='utf-8') as file:
                path = osp.join(self.work_dir, osp.basename(file.read().strip()))
            if osp.isfile(path):
                return path
        raise StudyError(f'{self.work_dir} has no checkpoint after the training; does the config save any?')


@dataclass
class JobRecord:
    """What one job found.

    Attributes:
        label (str): Its variant.
        x (float | None): Its place on a numeric axis.
        seed (int): Its seed.
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


class StudyRecord:
    """``study.json``: what is known of a study's jobs, kept after each of them.

    Args:
        path (str): The file; it is read if it is there.

    Attributes:
        settings (dict): What the study was run with.
        jobs (dict[str, JobRecord]): Name of a job -> what it found.

    Raises:
        StudyError: There is something else at ``path``.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.settings: dict[str, Any] = {}
        self.jobs: dict[str, JobRecord] = {}
        if osp.isfile(path):
            try:
                with open(path, encoding='utf-8') as file:
                    content = json.load(file)
                if content['format'] != _FORMAT:
                    raise ValueError(f'format {content["format"]}')
                self.settings = content['settings']
                self.jobs = {name: JobRecord(**job) for name, job in content['jobs'].items()}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise StudyError(
                    f'{path} is no record of a study ({type(error).__name__}: {error}); move it away or name another --out'
                ) from error

    def start(self, settings: Mapping[str, Any]) -> None:
        """Take over what the study is run with now.

        Raises:
            StudyError: The folder holds another study.
        """
        before = self.settings.get('study')
        if before not in (None, settings['study']):
            raise StudyError(f'{self.path} is of study {before}; name another --out for {settings["study"]}')
        self.settings = dict(settings)

    def update(self, name: str, job: JobRecord) -> None:
        """Set a job and write the file as a whole or not at all."""
        self.jobs[name] = job
        content = dict(format=_FORMAT, settings=self.settings, jobs={name: asdict(job) for name, job in self.jobs.items()})
        write_whole(self.path, json.dumps(content, indent=2, ensure_ascii=False) + '\n')


class JobRunner:
    """Runs jobs, several at once if :meth:`run` is called from several threads.

    Args:
        tools (str): The folder of ``train.py`` and ``evaluate.py``.
        data (str, optional): ``--data`` of the evaluation; None leaves the evaluation out.
        protocols (Sequence[str]): Its protocols.
        data_root (str, optional): Its ``--data-root``.
        num_workers (int): Its ``--num-workers``. Defaults to 2.
        devices (Sequence[str | None]): Values of ``CUDA_VISIBLE_DEVICES`` that jobs take in turns, one for each that runs at
            once; None leaves the environment's. Defaults to that, for one job.
    """

    def __init__(
        self,
        tools: str,
        data: str | None = None,
        protocols: Sequence[str] = (),
        data_root: str | None = None,
        num_workers: int = 2,
        devices: Sequence[str | None] = (None, ),
    ) -> None:
        self.tools = tools
        # A name comes before a folder, as in the evaluation.
        self.data = osp.abspath(data) if data is not None and data not in NAMED_DATA else data
        self.data_name = osp.basename(self.data or '')
        self.protocols = list(protocols) if data else []
        self.data_root = data_root
        self.num_workers = num_workers
        self._devices: queue.Queue[str | None] = queue.Queue()
        for device in devices:
            self._devices.put(device)
        self._processes: set[subprocess.Popen] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def missing(self, record: JobRecord | None) -> list[str]:
        """List the steps that a job still needs, of 'train' and the protocols."""
        if record is None or not record.checkpoint:
            return ['train', *self.protocols]
        return [protocol for protocol in self.protocols if protocol not in record.results.get(self.data_name, {})]

    def run(self, job: Job, record: JobRecord | None) -> JobRecord:
        """Do what a job still needs, and return what is then known of it.

        If it failed, ``error`` says how, with the end of the log.
        """
        record = replace(record or JobRecord(job.variant.label, None, job.seed), x=job.variant.x, error='')
        missing = self.missing(record)
        device = self._devices.get()
        try:
            os.makedirs(job.work_dir, exist_ok=True)
            if 'train' in missing:
                seconds = self._call(job, 'train', [job.config_file, '--work-dir', job.work_dir, '--resume'], device)
                record.checkpoint = osp.relpath(job.checkpoint(), job.folder)
                record.scalars = _last_scalars(job.work_dir)
                record.seconds = record.seconds | dict(train=seconds)
            protocols = [protocol for protocol in missing if protocol != 'train']
            if protocols:
                seconds, found = self._evaluate(job, protocols, device)
                record.results = record.results | {self.data_name: record.results.get(self.data_name, {}) | found}
                record.seconds = record.seconds | dict(evaluate=seconds)
        except (OSError, ValueError) as error:
            record.error = str(error)
        finally:
            self._devices.put(device)
        return record

    def _evaluate(self, job: Job, protocols: Sequence[str], device: str | None) -> tuple[float, dict[str, dict]]:
        out = osp.join(job.work_dir, 'evaluation', self.data_name)
        # One seed: the spread of interest is that of the pretraining.
        arguments = [
            job.checkpoint(), '--data', str(self.data), '--protocols', *protocols, '--out', out, '--labels',
            f'{job.variant.label}, seed {job.seed}', '--seeds', str(job.seed), '--num-workers', str(self.num_workers),
        ]
        arguments += ['--data-root', self.data_root] if self.data_root else []
        seconds = self._call(job, 'evaluate', arguments, device)
        row = ResultsFile(osp.join(out, 'results.json')).rows[-1]
        found = {}
        for protocol in protocols:
            result = row.protocols[protocol]
            metric = result.metrics[result.main]
            found[protocol] = dict(metric=result.main, value=round(metric.mean, 4), unit=metric.unit)
        return seconds, found

    def _call(self, job: Job, tool: str, arguments: Sequence[str], device: str | None) -> float:
        """Run a tool, its output in ``<tool>.log`` of the work dir, and return the seconds that it took."""
        log = osp.join(job.work_dir, f'{tool}.log')
        environment = dict(os.environ, **({} if device is None else {'CUDA_VISIBLE_DEVICES': device}))
        begin = time.perf_counter()
        with open(log, 'ab') as output:
            place = output.tell()
            command = [sys.executable, osp.join(self.tools, f'{tool}.py'), *arguments]
            with self._lock:
                if self._stopped:
                    raise StudyError('stopped')
                # A session of its own, so that its data workers end with it.
                process = subprocess.Popen(
                    command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
                )
                self._processes.add(process)
            status = process.wait()
        self._processes.discard(process)
        if self._stopped:
            raise StudyError('stopped')
        if status:
            with open(log, encoding='utf-8', errors='replace') as text:
                text.seek(place)
                end = ''.join(text.readlines()[-_LOG_LINES:]).strip()
            name = osp.relpath(log, job.folder)
            raise StudyError(f'tools/{tool}.py ended with status {status}; the end of {name}:\n{end}')
        return round(time.perf_counter() - begin, 1)

    def stop(self) -> None:
        """End all processes that run, and start no other."""
        with self._lock:
            self._stopped = True
            processes = list(self._processes)
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _last_scalars(work_dir: str) -> dict[str, float]:
    """The last losses, mask statistics and kNN accuracy that a run logged, over all its starts, where they are finite."""
    found: dict[str, float] = {}
    for path in sorted(glob.glob(osp.join(glob.escape(work_dir), '*', 'vis_data', 'scalars.json'))):
        with open(path, encoding='utf-8') as file:
            for line in file:
                try:
                    record = json.loads(line)
                except ValueError:  # a line that a kill has cut
                    continue
                found |= {n: v for n, v in record.items() if 'loss' in n or n.startswith(('masks/', 'knn/'))}
    return {n: round(float(v), 6) for n, v in found.items() if isinstance(v, (int, float)) and math.isfinite(v)}
