"""Results of evaluations as tables."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmmlo.utils.markdown import escape_markdown, markdown_table
from mmmlo.utils.text import format_list

from .results import Metric, ProtocolResult, Row, group_by_data, main_metrics, merge_orders, row_labels, to_plain

__all__ = ['to_markdown']

# Keys of a key report -> how the table calls them.
_KEY_COUNTS = dict(
    matched='matched', resized='resized', new_by_design='new by design', left_by_design='left by design'
)
_LABEL = 44  # most characters of a label; the path stands in the last table in full
_MOST_KEYS = 6  # names that are listed of each kind; a decoder has hundreds


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
    names = row_labels(rows, _LABEL)
    blocks: list[str] = []
    for data, some in groups.items():
        blocks.append(('## ' if len(groups) > 1 else 'Dataset: ') + escape_markdown(data))
        level = '###' if len(groups) > 1 else '##'
        blocks += [f'{level} Summary', *_summary(some, names)]
        for protocol in merge_orders(row.protocols for row in some):
            blocks += [f'{level} {escape_markdown(protocol)}', *_protocol(_results(protocol, some), names)]
        blocks += [f'{level} Weights', *_weights(some, names)]
    versions = _unique(
        ', '.join(f'{name} {version}' for name, version in result.versions.items())
        for row in rows
        for result in row.protocols.values()
        if result.versions
    )
    if versions:
        blocks.append(f'Versions: {escape_markdown("; ".join(versions))}')
    return '\n\n'.join(blocks or ['No results.']) + '\n'


def _summary(rows: Sequence[Row], names: Mapping[str, str]) -> list[str]:
    columns = main_metrics(rows)
    units = _unique(unit for _, _, unit in columns)
    table = [['checkpoint', 'method', 'iteration', *(_with_unit(f'{p}: {m}', u, units) for p, m, u in columns)]]
    for row in rows:
        mains = {(r.protocol, r.main, r.metrics[r.main].unit): r.metrics[r.main] for r in row.protocols.values()}
        iteration = '-' if row.iteration is None else str(row.iteration)
        table.append([names[row.sha256], row.method, iteration, *(str(mains.get(column, '-')) for column in columns)])
    lines = [markdown_table(table, left=(0, 1))]
    if columns:
        deviation = 'Mean ± sample deviation; no deviation where there is a single value.'
        lines.append(f'In {units[0]}. {deviation}' if len(units) == 1 else deviation)
    unlike = [name for name in _unique(p for p, _, _ in columns) if _split_settings(_results(name, rows))[1]]
    if unlike:
        lines.append(f'Settings differ between checkpoints, see below: {escape_markdown(", ".join(unlike))}.')
    return lines


def _protocol(results: Mapping[str, ProtocolResult], names: Mapping[str, str]) -> list[str]:
    columns = merge_orders([(name, metric.unit) for name, metric in r.metrics.items()] for r in results.values())
    units = _unique(unit for _, unit in columns)
    table = [['checkpoint', *(_with_unit(name, unit, units) for name, unit in columns), 'values', 'seconds', 'features']]
    for sha256, result in results.items():
        found: dict[Any, Metric] = {(name, metric.unit): metric for name, metric in result.metrics.items()}
        counts = sorted({len(metric.values) for metric in found.values()})
        values = str(counts[0]) if len(counts) == 1 else f'{counts[0]} to {counts[-1]}'
        cells = [*(str(found.get(column, '-')) for column in columns), values]
        table.append([names[sha256], *cells, f'{result.seconds:.1f}', 'cached' if result.cached else 'computed'])
    shared, own = _split_settings(results)
    settings = f'Settings: {_settings(shared) or ("see below" if own else "none")}.'
    lines = [markdown_table(table), f'In {units[0]}. {settings}' if len(units) == 1 else settings]
    items = [f'- {escape_markdown(names[sha256])}: {_settings(some)}' for sha256, some in own.items() if some]
    items += _items({names[sha256]: result.notes for sha256, result in results.items()})
    return lines + (['\n'.join(items)] if items else [])


def _weights(rows: Sequence[Row], names: Mapping[str, str]) -> list[str]:
    table = [['checkpoint', *_KEY_COUNTS.values(), 'sha256', 'file']]
    lists: dict[str, list[str]] = {}
    for row in rows:
        counts = [str(row.key_report.get(key, '-')) for key in _KEY_COUNTS]
        table.append([names[row.sha256], *counts, row.sha256[:12], row.checkpoint])
        lists[names[row.sha256]] = [
            f'{key.replace("_", " ")}: {format_list(list(map(str, keys)), _MOST_KEYS)}'
            for key, keys in row.key_report.items()
            if isinstance(keys, (list, tuple)) and keys
        ]
    items = _items(lists)
    return [markdown_table(table, left=(0, -2, -1))] + (['\n'.join(items)] if items else [])


def _items(texts: Mapping[str, Sequence[str]]) -> list[str]:
    """List texts of several checkpoints, each text once."""
    items = []
    for text in _unique(text for some in texts.values() for text in some):
        by = [name for name, some in texts.items() if text in some]
        of = 'all checkpoints' if len(by) == len(texts) > 1 else ', '.join(by)
        items.append(f'- {escape_markdown(of)}: {escape_markdown(text)}')
    return items


def _results(protocol: str, rows: Iterable[Row]) -> dict[str, ProtocolResult]:
    """Collect what a protocol found on one dataset, by ``sha256``."""
    return {row.sha256: row.protocols[protocol] for row in rows if protocol in row.protocols}


def _split_settings(results: Mapping[str, ProtocolResult]) -> tuple[dict, dict[str, dict]]:
    """Part what results have in common from what each has by itself, which is empty if all are alike."""
    plain = {sha256: to_plain(result.settings) for sha256, result in results.items()}
    first: dict = next(iter(plain.values()), {})
    shared = {k: v for k, v in first.items() if all(k in some and some[k] == v for some in plain.values())}
    own = {sha256: {k: v for k, v in some.items() if k not in shared} for sha256, some in plain.items()}
    return shared, own if any(own.values()) else {}


def _settings(settings: Mapping) -> str:
    texts = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in settings.items()}
    return escape_markdown(', '.join(f'{name} = {text}' for name, text in texts.items()))


def _with_unit(name: str, unit: str, units: Sequence[str]) -> str:
    """Name the unit in the head of a column where it is not the same in all of them."""
    return name if len(units) == 1 else f'{name} ({unit})'


def _unique(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))
