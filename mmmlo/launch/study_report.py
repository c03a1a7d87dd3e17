"""The table and the picture of a study."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmmlo.evaluation.results import Metric
from mmmlo.utils.markdown import markdown_table

from .studies import JobRecord, Study

__all__ = ['Quantity', 'plot_study', 'quantities', 'study_table']

_TITLES = {
    'knn/top1': 'kNN on D_val, training log',
    'masks/mean_score': 'mean score',
    'masks/overlap': 'overlap of masks',
    'masks/saturation': 'saturated scores',
}
_COLOUR = '#0072B2'
_HEIGHT, _WIDTH, _BAR = 3.4, 3.6, 0.75  # inches of a panel, and of a bar with its gap


@dataclass
class Quantity:
    """What jobs have measured: an accuracy of a protocol, or a scalar of the training log.

    Attributes:
        title (str): What tables and pictures call it.
        unit (str): As in 'per cent'; '' if it has none.
        metrics (dict[str, Metric]): Label of a variant -> values over seeds.
    """

    title: str
    unit: str
    metrics: dict[str, Metric] = field(default_factory=dict)

    def add(self, label: str, value: float) -> None:
        """Add the value of a job."""
        self.metrics[label] = Metric([*(self.metrics[label].values if label in self.metrics else ()), value], self.unit)


def quantities(jobs: Mapping[str, JobRecord]) -> dict[str, Quantity]:
    """Collect what jobs have measured: results of protocols first, then kNN while training, mask statistics, losses.

    Args:
        jobs (Mapping[str, JobRecord]): The jobs; those that failed count for nothing.

    Returns:
        dict[str, Quantity]: Name of a scalar, or 'data/protocol' -> what was found, in the order of the table.
    """
    jobs = {name: job for name, job in jobs.items() if not job.error}
    several = len({data for job in jobs.values() for data in job.results}) > 1
    found: dict[str, Quantity] = {}
    for job in jobs.values():
        for data, results in job.results.items():
            for protocol, result in results.items():
                title = f'{data}: {protocol}, {result["metric"]}' if several else f'{protocol}, {result["metric"]}'
                found.setdefault(f'{data}/{protocol}', Quantity(title, result['unit'])).add(job.label, result['value'])
    scalars = {name for job in jobs.values() for name in job.scalars}
    for name in (*_TITLES, *sorted(scalars - set(_TITLES))):
        for job in jobs.values():
            if name in job.scalars:
                unit = 'per cent' if name.startswith('knn/') else ''
                found.setdefault(name, Quantity(_TITLES.get(name, name), unit)).add(job.label, job.scalars[name])
    return found


def study_table(study: Study, settings: Mapping[str, Any], jobs: Mapping[str, JobRecord]) -> str:
    """Write a study as Markdown: a row a variant, mean and deviation over seeds.

    Args:
        study (Study): The study.
        settings (Mapping): What it was run with; see :attr:`StudyRecord.settings`.
        jobs (Mapping[str, JobRecord]): What is known so far.

    Returns:
        str: Markdown.
    """
    columns = quantities(jobs).values()
    titles = [f'{column.title} ({column.unit})' if column.unit else column.title for column in columns]
    rows = [['variant', 'seeds', *titles, 'seconds of training']]
    for label in (variant.label for variant in study.variants):
        own = [job for job in jobs.values() if job.label == label and not job.error]
        seconds = [job.seconds['train'] for job in own if 'train' in job.seconds]
        cells = [_cell(column.metrics[label]) if label in column.metrics else '-' for column in columns]
        rows.append([label, str(len(own)), *cells, f'{sum(seconds) / len(seconds):.0f}' if seconds else '-'])
    options = ', '.join(f'{key}={value}' for key, value in settings['options'].items()) or 'none'
    blocks = [
        f'# {study.title}',
        markdown_table(rows),
        'Mean ± sample deviation over seeds; no deviation where there is one. Losses and mask statistics are those logged '
        'last.',
        f'Config: {settings["config"]}. Options of all jobs: {options}. Seeds: {", ".join(map(str, settings["seeds"]))}.',
    ]
    failed = [f'- {job.label}, seed {job.seed}: {job.error.splitlines()[0]}' for job in jobs.values() if job.error]
    if failed:
        blocks += ['Failed, and not in the table:', '\n'.join(failed)]
    return '\n\n'.join(blocks) + '\n'


def _cell(metric: Metric) -> str:
    if metric.unit:
        return str(metric)
    return f'{metric.mean:.3f}' + (f' ± {metric.std:.3f}' if metric.std is not None else '')


def plot_study(study: Study, jobs: Mapping[str, JobRecord], path: str) -> Figure | None:
    """Draw a panel a quantity: a line over a numeric axis, or bars. Whiskers are sample deviations over seeds, dots seeds.

    Args:
        study (Study): The study; of its ``plot``, 'accuracy' is that of every protocol, or, without any, kNN of the training
            log.
        jobs (Mapping[str, JobRecord]): What is known of the jobs.
        path (str): Where to write the picture; its ending says the format.

    Returns:
        Figure | None: What was drawn; None if no job has any of it yet.
    """
    found = quantities(jobs)
    accuracies = [name for name, quantity in found.items() if quantity.unit]
    accuracies = [name for name in accuracies if not name.startswith('knn/')] or accuracies
    names = [name for wanted in study.plot for name in (accuracies if wanted == 'accuracy' else [wanted]) if name in found]
    if not names:
        return None
    places = {v.label: float(i) if v.x is None or not study.x else v.x for i, v in enumerate(study.variants)}
    width = max(_WIDTH, 0 if study.x else _BAR * len(places) + 0.8)
    figure = Figure(figsize=(width * len(names), _HEIGHT), layout='constrained')
    figure.suptitle(study.title, fontsize=10, weight='bold', parse_math=False)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names):
        _draw(axes, places, found[name].metrics, bars=not study.x)
        axes.set_title(found[name].title, fontsize=9, parse_math=False)
        axes.set_ylabel(found[name].unit, fontsize=8)
        axes.set_xlabel(study.x, fontsize=8, parse_math=False)
        axes.tick_params(labelsize=8)
        axes.grid(axis='y', alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[['top', 'right']].set_visible(False)
    figure.savefig(path, dpi=150)
    return figure


def _draw(axes: Axes, places: Mapping[str, float], metrics: Mapping[str, Metric], bars: bool) -> None:
    shown = sorted((place, label) for label, place in places.items() if label in metrics)
    x, found = [place for place, _ in shown], [metrics[label] for _, label in shown]
    means, deviations = [metric.mean for metric in found], [metric.std or 0 for metric in found]
    if bars:
        yerr = deviations if any(deviations) else None
        axes.bar(x, means, 0.7, color=_COLOUR, alpha=0.8, yerr=yerr, ecolor='0.2', capsize=3)
        for label, place in places.items():
            text, top = '–', 0.0
            if label in metrics:
                metric = metrics[label]
                text = f'{metric.mean:.1f}' if metric.unit else f'{metric.mean:.2f}'
                top = max(metric.mean + (metric.std or 0), *metric.values)
            axes.annotate(text, (place, top), (0, 3), textcoords='offset points', ha='center', fontsize=7)
        axes.set_xlim(-0.6, len(places) - 0.4)
        axes.set_xticks(list(places.values()), [textwrap.fill(label, 12) for label in places], parse_math=False)
        axes.margins(y=0.12)
    else:
        axes.errorbar(x, means, deviations, color=_COLOUR, marker='o', markersize=5, linewidth=1.4, elinewidth=1, capsize=3)
        axes.set_xticks(x, [label for _, label in shown], parse_math=False)
    for place, metric in zip(x, found):
        if len(metric.values) > 1:
            axes.plot([place] * len(metric.values), metric.values, '.', color='0.2', markersize=4, zorder=3)
