"""``study.json``: what is known of a study's jobs, kept after each of them."""

import json
import os.path as osp
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mmmlo.utils.whole_file import write_whole

from .definitions import StudyError

__all__ = ['JobRecord', 'StudyRecord']

FORMAT = 1


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
    """The file of a study.

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
        self._lock = threading.Lock()
        if osp.isfile(path):
            try:
                with open(path, encoding='utf-8') as file:
                    content = json.load(file)
                if content['format'] != FORMAT:
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
        """Set a job and write the file as a whole or not at all; several threads may."""
        with self._lock:
            self.jobs[name] = job
            content = dict(
                format=FORMAT, settings=self.settings, jobs={name: asdict(job) for name, job in self.jobs.items()}
            )
            write_whole(self.path, json.dumps(content, indent=2, ensure_ascii=False) + '\n')
