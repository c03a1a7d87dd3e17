"""Reads a work dir as it is: of a run that goes on, was interrupted, or is of something else."""

import json
import math
import os
import os.path as osp
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from glob import escape, glob
from typing import Any

from mmmlo.evaluation.results import ResultsFile, Row
from mmmlo.utils.config import read_config
from mmmlo.utils.errors import MissingFileError, SettingError
from mmmlo.utils.text import describe_error

__all__ = ['Points', 'Run', 'find_runs']

Points = list[tuple[float, float]]

_DEPTH = 4  # of folders that are searched for runs
_MARKS = ('*/vis_data/scalars.json', 'provenance.json')
_PLACE = ('step', 'iter', 'epoch')
_PICTURE = re.compile(r'(masks|mask_frequency)_(\d+)\.png')


@dataclass
class Run:
    """What a work dir tells.

    Attributes:
        label (str): What to call it.
        starts (list[dict]): Entries of ``provenance.json``, one for each time that training began.
        config (dict): Plain values of the config; see :func:`mmmlo.utils.config.read_config`.
        config_text (str): The config as it was resolved.
        curves (dict[str, Points]): Name of a number -> (iteration, value), those that are finite. A loss of a run of one
            level is ``pretrain/loss``.
        metrics (list[str]): Names of those that a validation has found.
        seconds (Points): Iteration -> seconds of training until then, by the log's time an iteration.
        epoch (int): The last one that the log has a line of.
        logged (float): When the log was last written to, in seconds since 1970; 0 if never.
        pictures (dict[str, dict[int, str]]): ``masks`` and ``mask_frequency`` -> iteration -> file.
        results (list[Row]): Of evaluations below the work dir.
        missing (list[str]): What is not there or not right, a sentence each.
    """

    path: str
    label: str
    starts: list[dict] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ''
    curves: dict[str, Points] = field(default_factory=dict)
    metrics: list[str] = field(default_factory=list)
    seconds: Points = field(default_factory=list)
    epoch: int = 0
    logged: float = 0
    pictures: dict[str, dict[int, str]] = field(default_factory=dict)
    results: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._read_provenance()
        self._read_logs()
        self._find_pictures()
        for path in sorted(glob(osp.join(escape(self.path), '**', 'results.json'), recursive=True)):
            try:
                self.results += ResultsFile(path).rows
            except (SettingError, OSError) as error:
                self.missing.append(str(error))

    def last(self, name: str, count: int = 5) -> float | None:
        """Average the last values of a number; None if there are none."""
        values = [value for _, value in self.curves.get(name, ())[-count:]]
        return sum(values) / len(values) if values else None

    def _read_provenance(self) -> None:
        path = osp.join(self.path, 'provenance.json')
        try:
            with open(path, encoding='utf-8') as file:
                content = json.load(file)
            if content['format'] != 1:
                raise ValueError(f'it is of format {content["format"]}, and this version reads format 1')
            self.starts = [start for start in content['runs'] if start['config']]
            self.config_text = self.starts[-1]['config']
        except FileNotFoundError:
            self.missing.append('There is no provenance.json (mmmlo.ProvenanceHook): commit, data and machine are unknown.')
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            self.missing.append(f'provenance.json cannot be read ({describe_error(error)}).')
        for path in sorted(glob(osp.join(escape(self.path), '*', 'vis_data', 'config.py')))[-1:]:
            if not self.config_text:
                with open(path, encoding='utf-8', errors='replace') as file:
                    self.config_text = file.read()
        self.config = read_config(self.config_text)

    def _read_logs(self) -> None:
        torn, not_finite = 0, dict[str, list[int]]()
        for path in sorted(glob(osp.join(escape(self.path), _MARKS[0]))):
            step, first = 0, True
            self.logged = osp.getmtime(path)
            for record in _lines(path):
                if record is None:
                    torn += 1
                    continue
                trains = 'iter' in record
                # A line of a validation counts epochs, and comes after what was logged before it.
                if trains or not any(name in record for name in ('time', 'data_time')):
                    step = int(record.get('step', step))
                if trains and first:
                    self._forget(step)
                    first = False
                self._add(record, step, trains, not_finite)
        if torn:
            self.missing.append(f'Lines of the log that cannot be read, cut off while they were written: {torn}.')
        for name, steps in not_finite.items():
            self.missing.append(
                f'{name} was not finite {len(steps)} times, first at iteration {steps[0]}. '
                'Where the run has written non_finite_*.pth, tools/analysis_tools/replay_batch.py finds the cause.'
            )
        if not self.curves:
            self.missing.append('There is no line of a log (<time>/vis_data/scalars.json): nothing was logged here yet.')
        elif not any(name.startswith('masks/') for name in self.curves):
            self.missing.append(
                "Nothing was measured of masks. If this run has any: custom_hooks=[dict(type='mmmlo.MaskStatisticsHook')]."
            )

    def _forget(self, step: int) -> None:
        """A run that was resumed does again what came after its checkpoint."""
        for points in (*self.curves.values(), self.seconds):
            while points and points[-1][0] >= step:
                points.pop()

    def _add(self, record: dict, step: int, trains: bool, not_finite: dict[str, list[int]]) -> None:
        for name, value in record.items():
            if name in _PLACE or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not trains and name in ('time', 'data_time'):
                continue
            name = f'pretrain/{name}' if trains and name in ('loss', 'grad_norm') else name
            if not math.isfinite(value):
                not_finite.setdefault(name, []).append(step)
                continue
            if not trains and not name.startswith('masks/') and name not in self.metrics:
                self.metrics.append(name)
            self.curves.setdefault(name, []).append((step, value))
        if trains:
            self.epoch = int(record.get('epoch', 0))
            before, spent = self.seconds[-1] if self.seconds else (0, 0.0)
            pace = record.get('time', math.nan)
            self.seconds.append((step, spent + (step - before) * pace if math.isfinite(pace) else spent))

    def _find_pictures(self) -> None:
        for path in sorted(glob(osp.join(escape(self.path), '*', 'vis_data', 'vis_image', '*.png'))):
            match = _PICTURE.fullmatch(osp.basename(path))
            if match:
                self.pictures.setdefault(match[1], {})[int(match[2])] = path


def _lines(path: str) -> Iterator[dict | None]:
    """The records of a log; None where a line is none."""
    with open(path, encoding='utf-8', errors='replace') as file:
        for line in file:
            if line.strip():
                try:
                    record = json.loads(line)
                except ValueError:
                    record = None
                yield record if isinstance(record, dict) else None


def find_runs(paths: Sequence[str]) -> list[Run]:
    """Read work dirs, or all those in folders of them, such as a study's.

    Raises:
        MissingFileError: A folder is not there.
        SettingError: None of them holds a log, or provenance of a run.
    """
    found: list[str] = []
    for path in paths:
        if not osp.isdir(path):
            raise MissingFileError(f'there is no folder {path}; name the work dir of a run, or a folder of several')
        below = list(_runs_below(path))
        found += below if below or len(paths) == 1 else [path]
    if not any(map(_is_run, found)):
        raise SettingError(
            f'{" ".join(paths)}: no work dir of a run. One has provenance.json or <time>/vis_data/scalars.json, '
            'which training writes'
        )
    found = list(dict.fromkeys(map(osp.abspath, found)))
    common = osp.commonpath([osp.dirname(path) for path in found])
    return [Run(path, osp.relpath(path, common)) for path in found]


def _is_run(path: str) -> bool:
    return any(glob(osp.join(escape(path), mark)) for mark in _MARKS)


def _runs_below(path: str, depth: int = _DEPTH) -> Iterator[str]:
    if _is_run(path):
        yield path
    elif depth:
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            if entry.is_dir():
                yield from _runs_below(entry.path, depth - 1)
