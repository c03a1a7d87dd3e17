"""Results of evaluations as tables."""

import json
from collections.abc import Iterable, Mapping, Sequence

from mmmlo.utils.markdown import escape_markdown, markdown_table

from .results import ProtocolResult, Row, group_by_data, main_metrics, row_labels

__all__ = ['to_markdown']

_KEY_COUNTS = ('matched', 'resized', 'new_by_design', 'left_by_design')
_LABEL = 44  # most characters of a label; the path stands in the last table in full


def to_markdown(rows: Sequence[Row]) -> str:
    """Write results as tables that can be read as they are or as Markdown.

    A summary with the main metric of each protocol comes first, then a table a protocol with everything that it measured,
    then how the weights of each checkpoint met the encoder's. Datasets are sections where there are several.
    """
    groups = group_by_data(rows)
    names = row_labels(rows, _LABEL)
    level = '###' if len(groups) > 1 else '##'
    blocks: list[str] = []
    for data, some in groups.items():
        blocks.append(('## ' if len(groups) > 1 else 'Dataset: ') + escape_markdown(data))
        found = {
            name: {names[row.sha256]: row.protocols[name] for row in some if name in row.protocols}
            for name in dict.fromkeys(protocol for row in some for protocol in row.protocols)
        }
        blocks += [f'{level} Summary', *_summary(some, names)]
        unlike = [name for name, results in found.items() if len(set(map(_settings, results.values()))) > 1]
        if unlike:
            blocks.append(f'Settings differ between checkpoints, see below: {escape_markdown(", ".join(unlike))}.')
        for name, results in found.items():
            blocks += [f'{level} {escape_markdown(name)}', *_protocol(results)]
        blocks += [f'{level} Weights', _weights(some, names)]
    versions = dict.fromkeys(
        ', '.join(f'{name} {version}' for name, version in result.versions.items())
        for row in rows
        for result in row.protocols.values()
        if result.versions
    )
    if versions:
        blocks.append(f'Versions: {escape_markdown("; ".join(versions))}')
    return '\n\n'.join(blocks or ['No results.']) + '\n'


def _summary(rows: Sequence[Row], names: Mapping[str, str]) -> list[str]:
    columns = [(protocol, main) for protocol, main, _ in main_metrics(rows)]
    table = [['checkpoint', 'method', 'iteration', *map(': '.join, columns)]]
    for row in rows:
        mains = {(result.protocol, result.main): result.metrics[result.main] for result in row.protocols.values()}
        iteration = '-' if row.iteration is None else str(row.iteration)
        table.append([names[row.sha256], row.method, iteration, *(str(mains.get(column, '-')) for column in columns)])
    text = 'In per cent. Mean ± sample deviation; no deviation where there is a single value.'
    return [markdown_table(table, left=(0, 1)), text]


def _protocol(results: Mapping[str, ProtocolResult]) -> list[str]:
    columns = list(dict.fromkeys(name for result in results.values() for name in result.metrics))
    table = [['checkpoint', *columns, 'values', 'seconds', 'features']]
    for label, result in results.items():
        cells = [str(result.metrics.get(name, '-')) for name in columns]
        count = len(result.metrics[result.main].values)
        table.append([label, *cells, str(count), f'{result.seconds:.1f}', 'cached' if result.cached else 'computed'])
    texts = {label: [f'Settings: {_settings(result)}', *result.notes] for label, result in results.items()}
    return [markdown_table(table), '\n'.join(_items(texts))]


def _weights(rows: Sequence[Row], names: Mapping[str, str]) -> str:
    table = [['checkpoint', *(key.replace('_', ' ') for key in _KEY_COUNTS), 'sha256', 'file']]
    for row in rows:
        counts = [str(row.key_report.get(key, '-')) for key in _KEY_COUNTS]
        table.append([names[row.sha256], *counts, row.sha256[:12], row.checkpoint])
    return markdown_table(table, left=(0, -2, -1))


def _items(texts: Mapping[str, Sequence[str]]) -> Iterable[str]:
    """List texts of several checkpoints, each text once."""
    for text in dict.fromkeys(text for some in texts.values() for text in some):
        by = [label for label, some in texts.items() if text in some]
        of = 'all checkpoints' if len(by) == len(texts) > 1 else ', '.join(by)
        yield f'- {escape_markdown(of)}: {escape_markdown(text)}'


def _settings(result: ProtocolResult) -> str:
    texts = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in result.settings.items()}
    return ', '.join(f'{name} = {text}' for name, text in texts.items()) or 'none'
