"""The jobs of a study: each a training and an evaluation in processes of their own."""

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
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mmengine.config import Config

from mmmlo.evaluation.data import NAMED_DATA
from mmmlo.evaluation.results import ResultsFile
from mmmlo.utils.errors import MmmloError

from .definitions import StudyError, Variant
from .record import JobRecord

__all__ = ['Job', 'JobError', 'JobRunner', 'last_scalars']

LOG_LINES = 15  # of a failed process, for the message


class JobError(MmmloError, RuntimeError):
    """A job's process failed."""


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

    @property
    def name(self) -> str:
        """str: Name of its folder, below ``runs``."""
        return f'{re.sub(r"[^A-Za-z0-9_.-]+", "-", self.variant.label)}/seed_{self.seed}'

    @property
    def work_dir(self) -> str:
        """str: Where its logs and checkpoints are."""
        return osp.join(self.folder, 'runs', self.name)

    @property
    def config_file(self) -> str:
        """str: Where its config is written out. Not in the work dir, where the runner writes one with paths in it."""
        return osp.join(self.folder, 'configs', f'{self.name.replace("/", "_")}.py')

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
        temporary = f'{self.config_file}.tmp.py'
        self.config.dump(temporary)
        os.replace(temporary, self.config_file)

    def checkpoint(self) -> str:
        """The last checkpoint.

        Raises:
            JobError: There is none.
        """
        pointer = osp.join(self.work_dir, 'last_checkpoint')
        if osp.isfile(pointer):
            with open(pointer, encoding='utf-8') as file:
                # By its name: the folder may have been moved.
                path = osp.join(self.work_dir, osp.basename(file.read().strip()))
            if osp.isfile(path):
                return path
        raise JobError(f'{self.work_dir} has no checkpoint after the training; does the config save any?')


class JobRunner:
    """Runs jobs.

    Args:
        tools (str): The folder of ``train.py`` and ``evaluate.py``.
        data (str, optional): ``--data`` of the evaluation; None leaves it out.
        protocols (Sequence[str]): Its protocols.
        data_root (str, optional): Its ``--data-root``.
        num_workers (int): Its ``--num-workers``. Defaults to 2.
        devices (Sequence[str]): Values of ``CUDA_VISIBLE_DEVICES`` that jobs take in turns. Defaults to none: the
            environment's stays.
    """

    def __init__(
        self,
        tools: str,
        data: str | None = None,
        protocols: Sequence[str] = (),
        data_root: str | None = None,
        num_workers: int = 2,
        devices: Sequence[str] = (),
    ) -> None:
        self.tools = tools
        # A name comes before a folder, as in the evaluation.
        self.data = osp.abspath(data) if data is not None and data not in NAMED_DATA else data
        self.data_name = None if self.data is None else osp.basename(self.data)
        self.protocols = list(protocols)
        self.data_root = data_root
        self.num_workers = num_workers
        self._devices: queue.Queue[str] | None = queue.Queue() if devices else None
        for device in devices:
            self._devices.put(device)  # type: ignore[union-attr]
        self._processes: set[subprocess.Popen] = set()
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def missing(self, record: JobRecord | None) -> list[str]:
        """The steps that a job still needs, of 'train' and the protocols."""
        if record is None or not record.checkpoint:
            return ['train', *(self.protocols if self.data else [])]
        there = record.results.get(self.data_name or '', {})
        return [protocol for protocol in self.protocols if protocol not in there] if self.data else []

    def run(self, job: Job, record: JobRecord | None) -> JobRecord:
        """Do what a job still needs.

        Args:
            job (Job): The job.
            record (JobRecord, optional): What is known of it.

        Returns:
            JobRecord: What is known of it now. If it failed, ``error`` says how, with the end of the log.
        """
        record = record or JobRecord(job.variant.label, job.variant.x, job.seed)
        record = replace(record, x=job.variant.x, error='')
        missing = self.missing(record)
        device = self._devices.get() if self._devices is not None else None
        try:
            os.makedirs(job.work_dir, exist_ok=True)
            if 'train' in missing:
                seconds = self._call(job, 'train', [job.config_file, '--work-dir', job.work_dir, '--resume'], device)
                record = replace(
                    record,
                    checkpoint=osp.relpath(job.checkpoint(), job.folder),
                    scalars=last_scalars(job.work_dir),
                    seconds={**record.seconds, 'train': seconds},
                )
            protocols = [protocol for protocol in missing if protocol != 'train']
            if protocols:
                record = self._evaluate(job, record, protocols, device)
        except (JobError, OSError, ValueError) as error:
            record = replace(record, error=str(error))
        finally:
            if self._devices is not None and device is not None:
                self._devices.put(device)
        return record

    def _evaluate(self, job: Job, record: JobRecord, protocols: Sequence[str], device: str | None) -> JobRecord:
        assert self.data is not None and self.data_name is not None
        out = osp.join(job.work_dir, 'evaluation', self.data_name)
        # One seed: the spread of interest is that of the pretraining.
        arguments = [
            job.checkpoint(), '--data', self.data, '--protocols', *protocols, '--out', out, '--labels',
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
        results = {**record.results, self.data_name: {**record.results.get(self.data_name, {}), **found}}
        return replace(record, results=results, seconds={**record.seconds, 'evaluate': seconds})

    def _call(self, job: Job, tool: str, arguments: Sequence[str], device: str | None) -> float:
        """Run a tool, its output in ``<tool>.log`` of the work dir, and return the seconds that it took."""
        log = osp.join(job.work_dir, f'{tool}.log')
        environment = dict(os.environ, **({} if device is None else {'CUDA_VISIBLE_DEVICES': device}))
        begin = time.perf_counter()
        with open(log, 'ab') as output:
            place = output.tell()
            command = [sys.executable, osp.join(self.tools, f'{tool}.py'), *arguments]
            with self._lock:
                if self._stopped.is_set():
                    raise JobError('stopped')
                # A session of its own, so that its data workers end with it.
                process = subprocess.Popen(
                    command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
                )
                self._processes.add(process)
            try:
                status = process.wait()
            finally:
                self._processes.discard(process)
        if self._stopped.is_set():
            raise JobError('stopped')
        if status:
            with open(log, encoding='utf-8', errors='replace') as text:
                text.seek(place)
                end = ''.join(text.readlines()[-LOG_LINES:]).strip()
            raise JobError(f'tools/{tool}.py ended with status {status}; the end of {osp.relpath(log, job.folder)}:\n{end}')
        return round(time.perf_counter() - begin, 1)

    def stop(self) -> None:
        """End all processes that run, and start no other."""
        with self._lock:
            self._stopped.set()
            processes = list(self._processes)
        for process in processes:
            try:
                os.killpg(process.pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
        for process in processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)

    @property
    def stopped(self) -> bool:
        """bool: Whether :meth:`stop` was called."""
        return self._stopped.is_set()


def last_scalars(work_dir: str) -> dict[str, float]:
    """The last losses, mask statistics and kNN accuracy that a run logged, over all its starts.

    Args:
        work_dir (str): Its work dir.

    Returns:
        dict[str, float]: Name -> value; what is not finite is left out.
    """
    found: dict[str, float] = {}
    for path in sorted(glob.glob(osp.join(glob.escape(work_dir), '*', 'vis_data', 'scalars.json'))):
        with open(path, encoding='utf-8') as file:
            for line in file:
                try:
                    record = json.loads(line)
                except ValueError:  # a line that a kill has cut
                    continue
                for name, value in record.items():
                    wanted = 'loss' in name or name.startswith(('masks/', 'knn/'))
                    if wanted and isinstance(value, (int, float)):
                        found[name] = float(value)
    return {name: round(value, 6) for name, value in found.items() if math.isfinite(value)}
