"""Results of evaluations: what they are made of, and the file that keeps them."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from filelock import FileLock

from mmmlo.utils.errors import SettingError
from mmmlo.utils.provenance import loaded_versions
from mmmlo.utils.whole_file import write_whole

__all__ = ['Metric', 'ProtocolResult', 'ResultsFile', 'Row', 'group_by_data', 'main_metrics', 'row_labels', 'shorten_middle']

FORMAT = 1  # of the file; raised when an older version of this project could no longer read it
_PACKAGES = ('mmmlo', 'torch', 'mmengine', 'mmpretrain')


@dataclass
class Metric:
    """A number that was measured once or several times: a value for each seed or draw, NaN if it is not finite."""

    values: list[float]
    unit: str = 'per cent'

    def __post_init__(self) -> None:
        self.values = [float(value) if math.isfinite(value) else math.nan for value in self.values]

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
    """What one protocol found of one checkpoint, in ``seconds``.

    Attributes:
        settings (dict): What the protocol was run with, as JSON can hold it.
        metrics (dict[str, Metric]): What it measured. '1-shot', '2-shot' and so on are drawn as a curve.
        main (str): Name of the metric that stands in the summary.
        cached (bool): Whether the features came from the cache rather than from the encoder.
        notes (list[str]): What a reader of the numbers must know.
        versions (dict[str, str]): Of packages; :class:`ResultsFile` fills it in where it is empty.
    """

    protocol: str
    settings: dict[str, Any]
    metrics: dict[str, Metric]
    main: str
    seconds: float
    cached: bool = False
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


@dataclass
class Row:
    """What all protocols, by name, found of one checkpoint on one dataset.

    Attributes:
        label (str): What tables and pictures call the checkpoint.
        checkpoint (str): Path of its file.
        sha256 (str): Of the file: it tells checkpoints apart, wherever they lie and whatever they are called.
        method (str): How the encoder was trained, as in 'CLMAE'.
        iteration (int, optional): Iteration of the checkpoint; None where it does not say.
        data (str): Name of the dataset.
        key_report (dict[str, int]): How the checkpoint's weights met the encoder's.
    """

    label: str
    checkpoint: str
    sha256: str
    method: str
    iteration: int | None
    data: str
    key_report: dict[str, int] = field(default_factory=dict)
    protocols: dict[str, ProtocolResult] = field(default_factory=dict)


class ResultsFile:
    """The file that keeps the ``rows`` of evaluations, ``results.json``, and grows from one to the next.

    It and its folder are made if they are not there. A file that cannot be read is never written over.

    Raises:
        SettingError: There is something else at ``path``, or a file of another format.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)  # of a link, what it points to is replaced and not the link
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self.rows: list[Row] = []
        self._read()

    def update(self, row: Row) -> None:
        """Merge a row into the file, and write it at once.

        Rows of the same ``sha256`` and ``data`` are one row, whose older protocols stay unless ``row`` has them anew. The
        file is replaced as a whole or not at all, and locked meanwhile (a hidden file beside it), so that neither an
        interruption nor another evaluation loses a result.

        Raises:
            SettingError: The file was replaced by something else meanwhile.
        """
        versions = {name: text for name, text in loaded_versions().items() if name in _PACKAGES}
        new = {name: replace(result, versions=result.versions or versions) for name, result in row.protocols.items()}
        folder, name = os.path.split(self.path)
        with FileLock(os.path.join(folder, f'.{name}.lock')):
            self._read()  # another evaluation may have written to it
            rows = {(old.sha256, old.data): old for old in self.rows}
            old = rows.get((row.sha256, row.data), row)
            rows[row.sha256, row.data] = replace(row, protocols=old.protocols | new)
            self.rows = list(rows.values())
            content = dict(format=FORMAT, rows=list(map(_plain, self.rows)))
            write_whole(self.path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=str) + '\n')

    def _read(self) -> None:
        if not os.path.lexists(self.path):
            return
        try:
            with open(self.path, encoding='utf-8') as file:
                data = json.load(file)
            if data['format'] != FORMAT:
                raise ValueError(f'has format {data["format"]}, but this version of mmmlo reads format {FORMAT}')
            self.rows = [_row(row) for row in data['rows']]
        except (ValueError, KeyError, TypeError, AttributeError, IsADirectoryError) as error:
            raise SettingError(
                f'{self.path} is not a readable file of evaluation results ({type(error).__name__}: {error}). It was left '
                'as it is: move it away, or name another file for the results.'
            ) from error


def _plain(row: Row) -> dict:
    """Make of a row what JSON can hold; mean and deviation of a metric are for readers of the file."""
    plain = asdict(row)
    for result in plain['protocols'].values():
        for name, metric in result['metrics'].items():
            found = Metric(**metric)
            numbers = dict(mean=found.mean, std=found.std, values=found.values)
            result['metrics'][name] = dict(unit=found.unit, **json.loads(json.dumps(numbers), parse_constant=lambda _: None))
    return plain


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


def group_by_data(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Sort rows by dataset: name of a dataset -> its rows, in the order in which they come."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.data, []).append(row)
    return groups


def main_metrics(rows: Iterable[Row]) -> list[tuple[str, str, str]]:
    """List what a summary of rows compares: protocol, main metric and its unit; twice where rows differ in the metric."""
    results = [result for row in rows for result in row.protocols.values()]
    return list(dict.fromkeys((result.protocol, result.main, result.metrics[result.main].unit) for result in results))


def shorten_middle(text: str, length: int) -> str:
    """Replace the middle of a text of more than ``length`` characters by '…': names of runs differ at their ends."""
    if len(text) <= length:
        return text
    end = length // 2
    return f'{text[:length - 1 - end]}…{text[len(text) - end:]}'


def row_labels(rows: Iterable[Row], length: int) -> dict[str, str]:
    """Find a label of at most ``length`` characters for each checkpoint, no two alike, by its ``sha256``.

    The start of the hash tells equal labels apart. Of several labels of one checkpoint, the last counts.
    """
    full = {row.sha256: ' '.join(row.label.split()) for row in rows}
    short = {sha256: shorten_middle(label, length) for sha256, label in full.items()}
    counts = Counter(short.values())
    return {
        sha256: label if counts[label] == 1 else f'{shorten_middle(full[sha256], length - 9)} {sha256[:8]}'
        for sha256, label in short.items()
    }
