"""The table and the picture of a study."""

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.figure import Figure

from mmmlo.evaluation.results import Metric
from mmmlo.utils.markdown import markdown_table

from .studies import Job, Study

__all__ = ['plot_study', 'study_table']

_TITLES = {
    'knn/top1': 'kNN on D_val, training log',
    'masks/mean_score': 'mean score',
    'masks/overlap': 'overlap of masks',
    'masks/saturation': 'saturated scores',
}


def _quantities(jobs: Iterable[Job]) -> dict[tuple[str, str], dict[str, Metric]]:
    """Title and unit of what jobs have measured -> label of a variant -> values over seeds.

    Accuracies of protocols come first, then kNN while training, mask statistics, losses.
    """
    jobs = [job for job in jobs if not job.error]
    found: list[tuple[str, str, str, float]] = []
    for job in jobs:
        for data, results in job.results.items():
            found += [(f'{name} on {data}, {r["metric"]}', r['unit'], job.label, r['value']) for name, r in results.items()]
    losses = {name for job in jobs for name in job.scalars if 'loss' in name}
    for name in (*_TITLES, *sorted(losses)):
        title, unit = _TITLES.get(name, name), 'per cent' if name.startswith('knn/') else ''
        found += [(title, unit, job.label, job.scalars[name]) for job in jobs if name in job.scalars]
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    for title, unit, label, value in found:
        values.setdefault((title, unit), {}).setdefault(label, []).append(value)
    return {key: {label: Metric(some, key[1]) for label, some in own.items()} for key, own in values.items()}


def study_table(study: Study, settings: Mapping[str, Any], jobs: Iterable[Job]) -> str:
    """Write a study as Markdown: a row a variant, mean and deviation over seeds.

    Args:
        study (Study): The study.
        settings (Mapping): What it was run with: ``config``, and ``options`` of all jobs.
        jobs (Iterable[Job]): What is known so far.
    """
    jobs = list(jobs)
    columns = _quantities(jobs)
    titles = [f'{title} ({unit})' if unit else title for title, unit in columns]
    rows = [['variant', 'seeds', *titles, 'seconds of training']]
    for label in (variant.label for variant in study.variants):
        seconds = [job.seconds['train'] for job in jobs if job.label == label and not job.error]
        cells = [_cell(metrics[label]) if label in metrics else '-' for metrics in columns.values()]
        rows.append([label, str(len(seconds)), *cells, f'{sum(seconds) / len(seconds):.0f}' if seconds else '-'])
    seeds = sorted({job.seed for job in jobs})
    options = ', '.join(f'{key}={value}' for key, value in settings['options'].items()) or 'none'
    blocks = [
        f'# {study.title}',
        markdown_table(rows),
        'Mean ± sample deviation over seeds; no deviation where there is one. Losses and mask statistics are those logged '
        'last.',
        f'Config: {settings["config"]}. Options of all jobs: {options}. Seeds: {", ".join(map(str, seeds))}.',
    ]
    failed = [f'- {job.label}, seed {job.seed}: {job.error.splitlines()[0]}' for job in jobs if job.error]
    if failed:
        blocks += ['Failed, and not in the table:', '\n'.join(failed)]
    return '\n\n'.join(blocks) + '\n'


def _cell(metric: Metric) -> str:
    if metric.unit:
        return str(metric)
    return f'{metric.mean:.3f}' + (f' ± {metric.std:.3f}' if metric.std is not None else '')


def plot_study(study: Study, jobs: Iterable[Job], path: str) -> None:
    """Draw a panel for each accuracy, or kNN of the training log without any, and one for the overlap of masks.

    Lines over a numeric axis, else bars. Whiskers are sample deviations over seeds, dots seeds.

    Args:
        study (Study): The study.
        jobs (Iterable[Job]): What is known so far; nothing is drawn if none of it is.
        path (str): Where to write the picture; its ending says the format.
    """
    found = _quantities(jobs)
    accuracies = [key for key in found if key[1]]
    if len(accuracies) > 1:
        accuracies = [key for key in accuracies if key[0] != _TITLES['knn/top1']]
    keys = accuracies + [key for key in found if key[0] == _TITLES['masks/overlap']]
    if not keys:
        return
    places = {variant.label: variant.x if study.x else float(i) for i, variant in enumerate(study.variants)}
    figure = Figure(figsize=(max(3.6, 0.75 * len(places)) * len(keys), 3.4), layout='constrained')
    figure.suptitle(study.title, fontsize=10, weight='bold', parse_math=False)
    for axes, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys):
        shown = {label: found[key][label] for label in places if label in found[key]}
        x, means = [places[label] for label in shown], [metric.mean for metric in shown.values()]
        if not study.x:
            axes.bar(x, means, 0.7, alpha=0.8)
        line = 'o-' if study.x else 'none'
        axes.errorbar(x, means, [metric.std or 0 for metric in shown.values()], fmt=line, ecolor='0.2', capsize=3)
        for place, metric in zip(x, shown.values()):
            axes.plot([place] * len(metric.values), metric.values, '.', color='0.2', markersize=4, zorder=3)
        axes.set_title(key[0], fontsize=9, parse_math=False)
        axes.set_ylabel(key[1], fontsize=8)
        axes.set_xlabel(study.x, fontsize=8, parse_math=False)
        axes.set_xticks([*places.values()], [textwrap.fill(label, 12) for label in places], fontsize=8, parse_math=False)
    figure.savefig(path, dpi=150)
