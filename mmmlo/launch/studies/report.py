"""The table of a study."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmmlo.evaluation.results import Metric
from mmmlo.utils.markdown import markdown_table

from .record import JobRecord

__all__ = ['Quantity', 'quantities', 'study_table']

_NAMES = {
    'knn/top1': 'kNN on D_val, training log',
    'masks/mean_score': 'mean score',
    'masks/overlap': 'overlap of masks',
    'masks/saturation': 'saturated scores',
}


@dataclass(frozen=True)
class Quantity:
    """A number that every job may have.

    Attributes:
        name (str): Its name in the records: that of a scalar, or 'data/protocol'.
        title (str): What tables and pictures call it.
        unit (str): As in 'per cent'; '' if it has none.
        accuracy (bool): Whether it is one.
        read (Callable[[JobRecord], float | None]): Finds it in a record.
    """

    name: str
    title: str
    unit: str
    accuracy: bool
    read: Callable[[JobRecord], float | None]

    def metrics(self, jobs: Mapping[str, JobRecord]) -> dict[str, Metric]:
        """Collect it: label of a variant -> its values over seeds; variants without any are left out."""
        values: dict[str, list[float]] = {}
        for job in jobs.values():
            value = self.read(job)
            if value is not None and not job.error:
                values.setdefault(job.label, []).append(value)
        return {label: Metric(some, self.unit) for label, some in values.items()}


def quantities(jobs: Mapping[str, JobRecord]) -> list[Quantity]:
    """List what jobs have measured: results of protocols first, then kNN while training, mask statistics, losses.

    Args:
        jobs (Mapping[str, JobRecord]): The jobs.

    Returns:
        list[Quantity]: In the order of the table.
    """
    found: dict[str, Quantity] = {}
    scalars: dict[str, None] = {}
    datasets = {data for job in jobs.values() for data in job.results}
    for job in jobs.values():
        for data, results in job.results.items():
            for protocol, result in results.items():
                metric, unit = result['metric'], result['unit']
                title = f'{protocol}, {metric}' if len(datasets) == 1 else f'{data}: {protocol}, {metric}'
                found[f'{data}/{protocol}'] = Quantity(
                    f'{data}/{protocol}', title, unit, True, lambda job, d=data, p=protocol: _result(job, d, p)  # type: ignore
                )
        scalars.update(dict.fromkeys(job.scalars))
    order = [*_NAMES, *sorted(name for name in scalars if name not in _NAMES)]
    for name in order:
        if name in scalars:
            unit = 'per cent' if name.startswith('knn/') else ''
            accuracy = name.startswith('knn/')
            found[name] = Quantity(
                name, _NAMES.get(name, name), unit, accuracy, lambda job, n=name: job.scalars.get(n)  # type: ignore
            )
    return list(found.values())


def study_table(settings: Mapping[str, Any], labels: Sequence[str], jobs: Mapping[str, JobRecord]) -> str:
    """Write a study as Markdown: a row a variant, mean and deviation over seeds.

    Args:
        settings (Mapping): What the study was run with; see :attr:`StudyRecord.settings`.
        labels (Sequence[str]): The variants, in order.
        jobs (Mapping[str, JobRecord]): What is known so far.

    Returns:
        str: Markdown.
    """
    columns = quantities(jobs)
    collected = [column.metrics(jobs) for column in columns]
    head = ['variant', 'seeds', *(c.title + (f' ({c.unit})' if c.unit else '') for c in columns), 'seconds of training']
    rows = [head]
    for label in labels:
        own = [job for job in jobs.values() if job.label == label and not job.error]
        seconds = [job.seconds['train'] for job in own if 'train' in job.seconds]
        cells = [_number(metrics.get(label), column) for metrics, column in zip(collected, columns)]
        rows.append([label, str(len(own)), *cells, f'{sum(seconds) / len(seconds):.0f}' if seconds else '-'])
    blocks = [
        f'# {settings["title"]}',
        markdown_table(rows),
        'Mean ± sample deviation over seeds; no deviation where there is one. Losses and mask statistics are those logged '
        'last.',
        f'Config: {settings["config"]}. Options of all jobs: {_listed(settings["options"])}. '
        f'Seeds: {", ".join(map(str, settings["seeds"]))}.',
    ]
    failed = [f'- {job.label}, seed {job.seed}: {job.error.splitlines()[0]}' for job in jobs.values() if job.error]
    if failed:
        blocks += ['Failed, and not in the table:', '\n'.join(failed)]
    return '\n\n'.join(blocks) + '\n'


def _result(job: JobRecord, data: str, protocol: str) -> float | None:
    return job.results.get(data, {}).get(protocol, {}).get('value')


def _number(metric: Metric | None, column: Quantity) -> str:
    if metric is None:
        return '-'
    if column.accuracy:
        return str(metric)
    return f'{metric.mean:.3f}' + (f' ± {metric.std:.3f}' if metric.std is not None else '')


def _listed(options: Mapping[str, Any]) -> str:
    return ', '.join(f'{key}={value}' for key, value in options.items()) or 'none'
