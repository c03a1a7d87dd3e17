"""Results of evaluations: what they are made of, the file that keeps them, and their tables."""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from typing import Any, TypeVar

from mmmlo.utils.errors import SettingError
from mmmlo.utils.whole_file import write_whole
from mmmlo.version import __version__

__all__ = [
    'Metric',
    'ProtocolResult',
    'ResultsFile',
    'Row',
    'group_by_data',
    'main_metrics',
    'row_labels',
    'shorten_middle',
    'to_markdown',
]

FORMAT = 1  # of the file; raised when an older version of this project could no longer read it

# Keys of a key report -> how the table calls them.
KEY_COUNTS = {
    'matched': 'matched',
    'resized': 'resized',
    'new_by_design': 'new by design',
    'left_by_design': 'left by design',
}
LABEL = 44  # most characters of a label in a table; the path stands in the last table in full
MOST_KEYS = 6  # names that are listed of each kind; a decoder has hundreds

_T = TypeVar('_T', bound=Hashable)


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
        numbers = [float(value) for value in self.values]
        self.values = [value if math.isfinite(value) else math.nan for value in numbers]
        if not self.values:
            raise SettingError('a metric needs at least one value.')

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return math.fsum(self.values) / len(self.values)

    @property
    def std(self) -> float | None:
        """Sample deviation of the values; None of a single one."""
        if len(self.values) == 1:
            return None
        mean = self.mean
        return math.sqrt(math.fsum((value - mean) ** 2 for value in self.values) / (len(self.values) - 1))

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return 'n/a'
        return f'{self.mean:.2f}' if self.std is None else f'{self.mean:.2f} ± {self.std:.2f}'

    def to_json(self) -> dict:
        """Make what :meth:`from_json` reads; mean and deviation are there for readers of the file."""
        return _plain(dict(mean=self.mean, std=self.std, unit=self.unit, values=self.values))

    @classmethod
    def from_json(cls, data: Mapping) -> 'Metric':
        """Make a metric from what :meth:`to_json` gave."""
        return cls([math.nan if value is None else value for value in data['values']], data['unit'])


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

    def to_json(self) -> dict:
        """Make what :meth:`from_json` reads."""
        data = _plain({**vars(self), 'metrics': {}})
        return data | {'metrics': {name: metric.to_json() for name, metric in self.metrics.items()}}

    @classmethod
    def from_json(cls, data: Mapping) -> 'ProtocolResult':
        """Make a result from what :meth:`to_json` gave."""
        return cls(**{**data, 'metrics': {name: Metric.from_json(metric) for name, metric in data['metrics'].items()}})


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

    def to_json(self) -> dict:
        """Make what :meth:`from_json` reads."""
        data = _plain({**vars(self), 'protocols': {}})
        return data | {'protocols': {name: result.to_json() for name, result in self.protocols.items()}}

    @classmethod
    def from_json(cls, data: Mapping) -> 'Row':
        """Make a row from what :meth:`to_json` gave."""
        results = {name: ProtocolResult.from_json(result) for name, result in data['protocols'].items()}
        return cls(**{**data, 'protocols': results})


class ResultsFile:
    """The file that keeps the results of evaluations, ``results.json``.

    It grows from one evaluation to the next. A file that cannot be read is never written over.

    Args:
        path (str): The file. It and its folder are made if they are not there.

    Attributes:
        rows (list[Row]): What the file holds, in the order in which it came.

    Raises:
        ValueError: If there is something else at ``path``, or a file of a newer format.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)  # of a link, what it points to is replaced and not the link
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self.rows: list[Row] = []
        self._read()

    def update(self, row: Row) -> None:
        """Merge a row into the file, and write it at once.

        Rows of the same ``sha256`` and ``data`` are one row. Protocols that ``row`` has take the place of older results,
        the others stay. Called after every protocol, it leaves nothing to lose to an interruption: the file is replaced
        as a whole or not at all.

        Args:
            row (Row): What is new; it is left as it is.

        Raises:
            ValueError: If the file was replaced by something else meanwhile.
        """
        self._read()  # another evaluation may have written to it
        results = {
            name: replace(result, versions=result.versions or dict(_versions())) for name, result in row.protocols.items()
        }
        identities = [(other.sha256, other.data) for other in self.rows]
        if (row.sha256, row.data) in identities:
            index = identities.index((row.sha256, row.data))
            old = self.rows[index]
            merged = replace(row, protocols=old.protocols | results, key_report=row.key_report or old.key_report)
            self.rows[index] = merged
        else:
            self.rows.append(replace(row, protocols=results))
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
                self.rows = [Row.from_json(row) for row in data['rows']]
        except (ValueError, KeyError, TypeError, AttributeError, IsADirectoryError) as error:
            reason = f'{type(error).__name__}: {error}'
            raise SettingError(f'{self.path} is not a readable file of evaluation results ({reason}). {todo}') from error
        if version != FORMAT:
            raise SettingError(f'{self.path} has format {version}, but this version of mmmlo reads format {FORMAT}. {todo}')

    def _write(self) -> None:
        data = dict(format=FORMAT, rows=[row.to_json() for row in self.rows])
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
        # Numbers of one list in one line. Within strings there are no line breaks, so none of them is touched.
        text = re.sub(r'\[\n[^][{}"]*\]', lambda match: re.sub(r'\s+', ' ', match[0]).replace('[ ', '[')[:-2] + ']', text)
        write_whole(self.path, text + '\n')


def group_by_data(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Sort rows by dataset.

    Args:
        rows (Iterable[Row]): The rows.

    Returns:
        dict[str, list[Row]]: Name of a dataset -> its rows, in the order in which they come.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.data, []).append(row)
    return groups


def main_metrics(rows: Iterable[Row]) -> list[tuple[str, str, str]]:
    """List what a summary of rows compares.

    Args:
        rows (Iterable[Row]): The rows.

    Returns:
        list[tuple[str, str, str]]: Protocol, main metric and its unit. A protocol stands there twice if rows differ in its
        main metric, which cannot be compared.
    """
    return _merge([(r.protocol, r.main, r.metrics[r.main].unit) for r in row.protocols.values()] for row in rows)


def shorten_middle(text: str, length: int) -> str:
    """Leave out the middle of a text that is too long: names of runs differ at their ends.

    Args:
        text (str): The text.
        length (int): Most characters of the result.

    Returns:
        str: The text, or its start and its end with '…' between.
    """
    if len(text) <= length:
        return text
    end = length // 2
    return f'{text[:length - 1 - end]}…{text[len(text) - end:]}'


def row_labels(rows: Iterable[Row], length: int | None = None) -> dict[str, str]:
    """Find a label for each checkpoint, no two alike.

    Args:
        rows (Iterable[Row]): The rows. Of several labels of one checkpoint, the last counts.
        length (int, optional): Most characters of a label; more are cut from its middle. Defaults to no limit.

    Returns:
        dict[str, str]: ``sha256`` of a checkpoint -> its label, with the start of the ``sha256`` where others have the
        same.
    """
    full = {row.sha256: ' '.join(row.label.split()) for row in rows}
    most = length or max(map(len, full.values()), default=0) + 9
    short = {sha256: shorten_middle(label, most) for sha256, label in full.items()}
    counts = Counter(short.values())
    return {
        sha256: label if counts[label] == 1 else f'{shorten_middle(full[sha256], most - 9)} {sha256[:8]}'
        for sha256, label in short.items()
    }


def to_markdown(rows: Sequence[Row]) -> str:
    """Write results as tables that can be read as they are or as Markdown.

    A summary with the main metric of each protocol comes first, then a table a protocol with everything that it measured,
    then how the weights of each checkpoint met the encoder's. Datasets are sections where there are several.

    Args:
        rows (Sequence[Row]): The rows.

    Returns:
        str: Markdown, ending in a line break.
    """
    groups = group_by_data(rows)
    names = row_labels(rows, LABEL)
    blocks: list[str] = []
    for data, some in groups.items():
        blocks += [f'## {_escape(data)}'] if len(groups) > 1 else [f'Dataset: {_escape(data)}']
        level = '###' if len(groups) > 1 else '##'
        blocks += [f'{level} Summary', *_summary(some, names)]
        for protocol in _merge(row.protocols for row in some):
            blocks += [f'{level} {_escape(protocol)}', *_protocol(protocol, some, names)]
        blocks += [f'{level} Weights', *_weights(some, names)]
    versions = _unique(
        ', '.join(f'{name} {version}' for name, version in result.versions.items())
        for row in rows
        for result in row.protocols.values()
        if result.versions
    )
    if versions:
        blocks.append(f'Versions: {_escape("; ".join(versions))}')
    return '\n\n'.join(blocks or ['No results.']) + '\n'


def _summary(rows: Sequence[Row], names: Mapping[str, str]) -> list[str]:
    columns = main_metrics(rows)
    units = _unique(unit for _, _, unit in columns)
    table = [['checkpoint', 'method', 'iteration', *(_with_unit(f'{p}: {m}', u, units) for p, m, u in columns)]]
    for row in rows:
        cells = []
        for protocol, main, unit in columns:
            result = row.protocols.get(protocol)
            same = result is not None and (result.main, result.metrics[result.main].unit) == (main, unit)
            cells.append(str(result.metrics[main]) if result is not None and same else '-')
        iteration = '-' if row.iteration is None else str(row.iteration)
        table.append([names[row.sha256], row.method, iteration, *cells])
    unlike = [name for name in _unique(p for p, _, _ in columns) if _split_settings(_results(name, rows))[1]]
    lines = [_table(table, left=2)]
    if columns:
        deviation = 'Mean ± sample deviation; no deviation where there is a single value.'
        lines.append(f'In {units[0]}. {deviation}' if len(units) == 1 else deviation)
    if unlike:
        lines.append(f'Settings differ between checkpoints, see below: {_escape(", ".join(unlike))}.')
    return lines


def _protocol(protocol: str, rows: Sequence[Row], names: Mapping[str, str]) -> list[str]:
    results = _results(protocol, rows)
    columns = _merge([(name, metric.unit) for name, metric in result.metrics.items()] for result in results.values())
    units = _unique(unit for _, unit in columns)
    table = [['checkpoint', *(_with_unit(name, unit, units) for name, unit in columns), 'values', 'seconds', 'features']]
    for sha256, result in results.items():
        cells = []
        for name, unit in columns:
            metric = result.metrics.get(name)
            cells.append(str(metric) if metric is not None and metric.unit == unit else '-')
        counts = sorted({len(metric.values) for metric in result.metrics.values()})
        values = str(counts[0]) if len(counts) == 1 else f'{counts[0]} to {counts[-1]}'
        table.append([names[sha256], *cells, values, f'{result.seconds:.1f}', 'cached' if result.cached else 'computed'])
    shared, own = _split_settings(results)
    settings = f'Settings: {_settings(shared) or ("see below" if own else "none")}.'
    lines = [_table(table), f'In {units[0]}. {settings}' if len(units) == 1 else settings]
    items = [f'- {_escape(names[sha256])}: {_settings(some)}' for sha256, some in own.items() if some]
    items += _items({names[sha256]: result.notes for sha256, result in results.items()})
    return lines + (['\n'.join(items)] if items else [])


def _weights(rows: Sequence[Row], names: Mapping[str, str]) -> list[str]:
    table = [['checkpoint', *KEY_COUNTS.values(), 'sha256', 'file']]
    listed: dict[str, list[str]] = {}
    for row in rows:
        counts = [row.key_report.get(key, '-') for key in KEY_COUNTS]
        table.append([names[row.sha256], *map(str, counts), row.sha256[:12], row.checkpoint])
        lists = {k: list(map(str, v)) for k, v in row.key_report.items() if isinstance(v, (list, tuple)) and v}
        listed[names[row.sha256]] = [
            f'{key.replace("_", " ")}: {", ".join(keys[:MOST_KEYS])}'
            + (f' and {len(keys) - MOST_KEYS} more' if len(keys) > MOST_KEYS else '')
            for key, keys in lists.items()
        ]
    items = _items(listed)
    return [_table(table, right=2)] + (['\n'.join(items)] if items else [])


def _items(texts: Mapping[str, Sequence[str]]) -> list[str]:
    """List texts of several checkpoints, each text once."""
    items = []
    for text in _unique(text for some in texts.values() for text in some):
        by = [name for name, some in texts.items() if text in some]
        of = 'all checkpoints' if len(by) == len(texts) > 1 else ', '.join(by)
        items.append(f'- {_escape(of)}: {_escape(text)}')
    return items


def _results(protocol: str, rows: Iterable[Row]) -> dict[str, ProtocolResult]:
    """Collect what a protocol found on one dataset, by ``sha256``."""
    return {row.sha256: row.protocols[protocol] for row in rows if protocol in row.protocols}


def _split_settings(results: Mapping[str, ProtocolResult]) -> tuple[dict, dict[str, dict]]:
    """Part what results have in common from what each has by itself, which is empty if all are alike."""
    plain = {sha256: _plain(result.settings) for sha256, result in results.items()}
    first: dict = next(iter(plain.values()), {})
    shared = {k: v for k, v in first.items() if all(k in some and some[k] == v for some in plain.values())}
    own = {sha256: {k: v for k, v in some.items() if k not in shared} for sha256, some in plain.items()}
    return shared, own if any(own.values()) else {}


def _settings(settings: Mapping) -> str:
    texts = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in settings.items()}
    return _escape(', '.join(f'{name} = {text}' for name, text in texts.items()))


def _with_unit(name: str, unit: str, units: Sequence[str]) -> str:
    """Name the unit in the head of a column where it is not the same in all of them."""
    return name if len(units) == 1 else f'{name} ({unit})'


def _table(table: Sequence[Sequence[str]], left: int = 1, right: int = 0) -> str:
    """Write a table, its first row the head, with aligned columns: the first and last few to the left, numbers right."""
    cells = [[_escape(cell) for cell in row] for row in table]
    widths = [max(3, *map(len, column)) for column in zip(*cells)]
    to_left = [i < left or i >= len(widths) - right for i in range(len(widths))]

    def line(texts: Sequence[str]) -> str:
        return f'| {" | ".join(t.ljust(w) if lefty else t.rjust(w) for t, w, lefty in zip(texts, widths, to_left))} |'

    rule = ['-' * width if lefty else '-' * (width - 1) + ':' for width, lefty in zip(widths, to_left)]
    return '\n'.join(map(line, [cells[0], rule, *cells[1:]]))


def _escape(text: str) -> str:
    """Keep a text from becoming markup or another cell; of underscores nothing comes within words."""
    return re.sub(r'([\\|`*<])', r'\\\1', ' '.join(text.split()))


def _merge(orders: Iterable[Iterable[_T]]) -> list[_T]:
    """Merge lists into one without repetition; what is new comes before what follows it in its own list, else last."""
    merged: list[_T] = []
    for order in orders:
        place = len(merged)
        for item in reversed(list(order)):
            if item in merged:
                place = merged.index(item)
            else:
                merged.insert(place, item)
    return merged


def _unique(items: Iterable[_T]) -> list[_T]:
    return list(dict.fromkeys(items))


def _plain(value: Any) -> Any:
    """Make of settings what JSON can hold, the same as comes back from the file. Nothing is worth failing for here."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return _plain(value.tolist()) if hasattr(value, 'tolist') else str(value)


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
