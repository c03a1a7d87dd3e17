"""The picture of a study."""

import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmmlo.evaluation.results import Metric
from mmmlo.launch.studies.record import JobRecord
from mmmlo.launch.studies.report import Quantity, quantities

__all__ = ['plot_study']

COLOUR, DOTS = '#0072B2', '0.45'
HEIGHT, WIDTH, BAR = 3.0, 3.6, 0.75  # inches of a panel, and of a bar with its gap


def plot_study(
    labels: Mapping[str, float | None], jobs: Mapping[str, JobRecord], x: str, plot: Sequence[str], title: str, path: str
) -> Figure | None:
    """Draw a panel a quantity: a line over a numeric axis, or bars. Whiskers are sample deviations over seeds, dots seeds.

    Args:
        labels (Mapping[str, float | None]): Variants in order, and their places on the numeric axis.
        jobs (Mapping[str, JobRecord]): What is known of the jobs.
        x (str): Label of the numeric axis; '' draws bars.
        plot (Sequence[str]): Quantities; 'accuracy' is that of every protocol, or, without any, kNN of the training log.
        title (str): What stands above.
        path (str): Where to write the picture; its ending says the format.

    Returns:
        Figure | None: What was drawn; None if no job has any of it yet.
    """
    shown = _choose(quantities(jobs), plot)
    if not shown:
        return None
    width = max(WIDTH, 0 if x else BAR * len(labels) + 0.8)
    figure = Figure(figsize=(width * len(shown), HEIGHT + 0.4), layout='constrained')
    figure.suptitle(title, fontsize=10, weight='bold', parse_math=False)
    for axes, quantity in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown):
        metrics = quantity.metrics(jobs)
        (_draw_line if x else _draw_bars)(axes, labels, metrics)
        axes.set_title(quantity.title, fontsize=9, parse_math=False)
        axes.set_ylabel(quantity.unit, fontsize=8)
        if x:
            axes.set_xlabel(x, fontsize=8, parse_math=False)
        axes.tick_params(labelsize=8)
        axes.grid(axis='y', alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[['top', 'right']].set_visible(False)
    figure.savefig(path, dpi=150)
    return figure


def _choose(found: Sequence[Quantity], plot: Sequence[str]) -> list[Quantity]:
    chosen = []
    for name in plot:
        if name == 'accuracy':
            accuracies = [quantity for quantity in found if quantity.accuracy]
            chosen += [quantity for quantity in accuracies if not quantity.name.startswith('knn/')] or accuracies
        else:
            chosen += [quantity for quantity in found if quantity.name == name]
    return chosen


def _draw_line(axes: Axes, labels: Mapping[str, float | None], metrics: Mapping[str, Metric]) -> None:
    points = sorted((place, metrics[label]) for label, place in labels.items() if label in metrics and place is not None)
    places = [place for place, _ in points]
    axes.errorbar(
        places, [metric.mean for _, metric in points], [metric.std or 0 for _, metric in points], color=COLOUR, marker='o',
        markersize=5, linewidth=1.4, elinewidth=1, capsize=3)
    for place, metric in points:
        if len(metric.values) > 1:
            axes.plot([place] * len(metric.values), metric.values, '.', color=DOTS, markersize=4, zorder=3)
    axes.set_xticks(places, [label for label in labels if label in metrics])


def _draw_bars(axes: Axes, labels: Mapping[str, float | None], metrics: Mapping[str, Metric]) -> None:
    for place, label in enumerate(labels):
        if label not in metrics:
            axes.annotate('–', (place, 0), ha='center', va='bottom')
            continue
        metric = metrics[label]
        axes.bar(place, metric.mean, 0.7, color=COLOUR, alpha=0.8)
        if metric.std is not None:
            axes.errorbar(place, metric.mean, metric.std, color='0.2', elinewidth=1, capsize=3)
            axes.plot([place] * len(metric.values), metric.values, '.', color='0.2', markersize=4, zorder=3)
        text = f'{metric.mean:.1f}' if metric.unit else f'{metric.mean:.2f}'
        top = max([metric.mean + (metric.std or 0), *metric.values])
        axes.annotate(text, (place, top), (0, 3), textcoords='offset points', ha='center', fontsize=7)
    names = [textwrap.fill(label, 12) for label in labels]
    axes.set_xticks(range(len(labels)), names, fontsize=7, parse_math=False)
    axes.margins(y=0.12)
