"""Results of evaluations: what they are made of, and the file that keeps them."""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np
from filelock import FileLock

from mmmlo.utils.errors import SettingError
from mmmlo.utils.whole_file import write_whole
from mmmlo.version import __version__

__all__ = ['Metric', 'ProtocolResult', 'ResultsFile', 'Row', 'group_by_data', 'main_metrics', 'row_labels', 'shorten_middle']

FORMAT = 1  # of the file; raised when an older version of this project could no longer read it


@dataclass
class Metric:
    """A number that was measured once or several times.

    Attributes:
        values (list[float]): A value for each seed or draw, at least one. What is not finite is kept as NaN.
        unit (str): Unit of the values. Defaults to 'per cent'.
    """

    values: list[float]
    unit: str = 'per cent'

    def __post_init__(self) -> None:
        self.values = [float(value) if math.isfinite(value) else math.nan for value in self.values]
        if not self.values:
            raise SettingError('a metric needs at least one value.')

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return float(np.mean(self.values))

    @property
    def std(self) -> float | None:
        """Sample deviation of the values; None of a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return 'n/a'
        return f'{self.mean:.2f}' if self.std is None else f'{self.mean:.2f} ± {self.std:.2f}'


@dataclass
class ProtocolResult:
    """What one protocol found of one checkpoint.

    Attributes:
        protocol (str): Name of the protocol, as in 'knn'.
        settings (dict): What the protocol was run with.
        metrics (dict[str, Metric]): What it measured, in the order of the table. Accuracies with few training images are
            called '1-shot', '2-shot' and so on.
        main (str): Name of the metric that stands in the summary.
        seconds (float): How long it took.
        cached (bool): Whether the features came from the cache rather than from the encoder. Defaults to False.
        notes (list[str]): What a reader of the numbers must know. Defaults to none.
        versions (dict[str, str]): Packages and their versions. :class:`ResultsFile` fills it in where it is empty.
    """

    protocol: str
    settings: dict[str, Any]
    metrics: dict[str, Metric]
    main: str
    seconds: float
    cached: bool = False
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.main not in self.metrics:
            raise SettingError(f'{self.protocol}: the main metric {self.main!r} is not one of {list(self.metrics)}.')


@dataclass
class Row:
    """What all protocols found of one checkpoint on one dataset.

    Attributes:
        label (str): What tables and pictures call the checkpoint.
        checkpoint (str): Path of its file.
        sha256 (str): Of the file: it tells checkpoints apart, wherever they lie and whatever they are called.
        method (str): How the encoder was trained, as in 'CLMAE'.
        iteration (int, optional): Iteration of the checkpoint; None where it does not say.
        data (str): Name of the dataset.
        key_report (dict): How the checkpoint's weights met the encoder's: counts ``matched``, ``resized``,
            ``new_by_design`` and ``left_by_design``, and, if wanted, lists of names under other keys.
        protocols (dict[str, ProtocolResult]): Name of a protocol -> what it found.
    """

    label: str
    checkpoint: str
    sha256: str
    method: str
    iteration: int | None
    data: str
    key_report: dict[str, Any] = field(default_factory=dict)
    protocols: dict[str, ProtocolResult] = field(default_factory=dict)


class ResultsFile:
    """The file that keeps the results of evaluations, ``results.json``.

    It grows from one evaluation to the next. A file that cannot be read is never written over.

    Args:
        path (str): The file. It and its folder are made if they are not there.

    Attributes:
        rows (list[Row]): What the file holds, in the order in which it came.

    Raises:
        SettingError: There is something else at ``path``, or a file of a newer format.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)  # of a link, what it points to is replaced and not the link
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self.rows: list[Row] = []
        self._read()

    def update(self, row: Row) -> None:
        """Merge a row into the file, and write it at once.

        Rows of the same ``sha256`` and ``data`` are one row. Protocols that ``row`` has take the place of older results,
        the others stay. The file is replaced as a whole or not at all, and locked meanwhile (a hidden file beside it), so
        that neither an interruption nor another evaluation loses a result.

        Args:
            row (Row): What is new; it is left as it is.

        Raises:
            SettingError: The file was replaced by something else meanwhile.
        """
        results = {
            name: replace(result, versions=result.versions or dict(_versions())) for name, result in row.protocols.items()
        }
        folder, name = os.path.split(self.path)
        with FileLock(os.path.join(folder, f'.{name}.lock')):
            self._read()  # another evaluation may have written to it
            index = {(old.sha256, old.data): i for i, old in enumerate(self.rows)}.get((row.sha256, row.data))
            if index is None:
                self.rows.append(replace(row, protocols=results))
            else:
                old = self.rows[index]
                key_report = row.key_report or old.key_report
                self.rows[index] = replace(row, protocols=old.protocols | results, key_report=key_report)
            self._write()

    def _read(self) -> None:
        if not os.path.lexists(self.path):
            return
        todo = 'It was left as it is: move it away, or name another file for the results.'
        try:
            with open(self.path, encoding='utf-8') as file:
                data = json.load(file)
            version = data['format']
            if version == FORMAT:
                self.rows = [_row(row) for row in data['rows']]
        except (ValueError, KeyError, TypeError, AttributeError, IsADirectoryError) as error:
            reason = f'{type(error).__name__}: {error}'
            raise SettingError(f'{self.path} is not a readable file of evaluation results ({reason}). {todo}') from error
        if version != FORMAT:
            raise SettingError(f'{self.path} has format {version}, but this version of mmmlo reads format {FORMAT}. {todo}')

    def _write(self) -> None:
        rows = [asdict(row) for row in self.rows]
        for row, plain in zip(self.rows, rows):
            for protocol, result in row.protocols.items():
                plain['protocols'][protocol]['metrics'] = {
                    # Mean and deviation are for readers of the file.
                    name: dict(mean=metric.mean, std=metric.std, unit=metric.unit, values=metric.values)
                    for name, metric in result.metrics.items()
                }
        text = json.dumps(to_plain(dict(format=FORMAT, rows=rows)), indent=2, ensure_ascii=False, allow_nan=False)
        # Numbers of one list in one line. Within strings there are no line breaks, so none of them is touched.
        text = re.sub(r'\[\n[^][{}"]*\]', lambda match: re.sub(r'\s+', ' ', match[0]).replace('[ ', '[')[:-2] + ']', text)
        write_whole(self.path, text + '\n')


def group_by_data(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Sort rows by dataset: name of a dataset -> its rows, in the order in which they come."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.data, []).append(row)
    return groups


def main_metrics(rows: Iterable[Row]) -> list[tuple[str, str, str]]:
    """List what a summary of rows compares: protocol, main metric and its unit.

    A protocol stands there twice if rows differ in its main metric, which cannot be compared.
    """
    return merge_orders([(r.protocol, r.main, r.metrics[r.main].unit) for r in row.protocols.values()] for row in rows)


def shorten_middle(text: str, length: int) -> str:
    """Replace the middle of a text of more than ``length`` characters by '…': names of runs differ at their ends."""
    if len(text) <= length:
        return text
    end = length // 2
    return f'{text[:length - 1 - end]}…{text[len(text) - end:]}'


def row_labels(rows: Iterable[Row], length: int | None = None) -> dict[str, str]:
    """Find a label for each checkpoint, no two alike, by its ``sha256``, the start of which tells equal labels apart.

    Args:
        rows (Iterable[Row]): The rows. Of several labels of one checkpoint, the last counts.
        length (int, optional): Most characters of a label; more are cut from its middle. Defaults to no limit.
    """
    full = {row.sha256: ' '.join(row.label.split()) for row in rows}
    most = length or max(map(len, full.values()), default=0) + 9
    short = {sha256: shorten_middle(label, most) for sha256, label in full.items()}
    counts = Counter(short.values())
    return {
        sha256: label if counts[label] == 1 else f'{shorten_middle(full[sha256], most - 9)} {sha256[:8]}'
        for sha256, label in short.items()
    }


def merge_orders(orders: Iterable[Iterable[Any]]) -> list:
    """Merge lists into one without repetition; what is new comes before what follows it in its own list, else last."""
    merged: list = []
    for order in orders:
        place = len(merged)
        for item in reversed(list(order)):
            if item in merged:
                place = merged.index(item)
            else:
                merged.insert(place, item)
    return merged


def to_plain(value: Any) -> Any:
    """Make of settings what JSON can hold, the same as comes back from the file. Nothing is worth failing for here."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return to_plain(value.tolist()) if hasattr(value, 'tolist') else str(value)


def _row(data: Mapping) -> Row:
    """Make a row of what the file holds of it."""
    results = {}
    for protocol, result in data['protocols'].items():
        metrics = {
            name: Metric([math.nan if value is None else value for value in metric['values']], metric['unit'])
            for name, metric in result['metrics'].items()
        }
        results[protocol] = ProtocolResult(**{**result, 'metrics': metrics})
    return Row(**{**data, 'protocols': results})


@cache
def _versions() -> dict[str, str]:
    """Find versions by what is installed: to import mmpretrain takes seconds."""
    found = {'mmmlo': __version__}
    for name in ('torch', 'mmengine', 'mmpretrain'):
        for package in (f'onedl-{name}', name):
            try:
                found[name] = metadata.version(package)
                break
            except metadata.PackageNotFoundError:
                continue
    return found
