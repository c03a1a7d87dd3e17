"""Results of evaluations."""

import re
from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from mmmlo.evaluation.results import Row, group_by_data, main_metrics, row_labels, shorten_middle
from mmmlo.utils.errors import SettingError

# Okabe and Ito's colours, which are told apart with every kind of colour vision; yellow last, the faintest on white.
COLOURS = ('#0072B2', '#E69F00', '#009E73', '#D55E00', '#CC79A7', '#56B4E9', '#000000', '#F0E442')
MARKERS = 'os^DvPX*'
LABEL = 44  # most characters of a checkpoint's label
METRIC = 16  # of a line below a group of bars
FEW = 3  # with more bars in a group, their values stand upright
DPI = 150


def plot_results(rows: Sequence[Row], path: str) -> Figure:
    """Draw the main metric of each protocol as bars, and accuracies with few training images as curves over their number.

    A dataset has a row of panels, a checkpoint a colour. Whiskers are sample deviations. Bars start at 0; where a checkpoint
    has no result stands a dash.

    Args:
        rows (Sequence[Row]): What to draw.
        path (str): Where to write the picture; its ending says the format.

    Returns:
        Figure: What was drawn.

    Raises:
        SettingError: No row has a result.
    """
    rows = [row for row in rows if row.protocols]
    if not rows:
        raise SettingError('there is nothing to draw: no row has the result of a protocol.')
    labels = row_labels(rows, LABEL)
    colours = COLOURS if len(labels) <= len(COLOURS) else [colormaps['turbo'](i / len(labels)) for i in range(len(labels))]
    styles: dict[str, dict[str, Any]] = {
        sha256: dict(color=colour, marker=MARKERS[i % len(MARKERS)])
        for i, (sha256, colour) in enumerate(zip(labels, colours))
    }
    datasets = group_by_data(rows)
    panels = [_panels(some) for some in datasets.values()]
    columns = max(1, min(3, len(labels) // 2))
    width = max(4 * columns, *(sum(size for _, _, size in line) for line in panels))  # inches
    height = 3.1 * len(panels) + 0.18 * -(-len(labels) // columns)
    figure = Figure(figsize=(width, height), layout='constrained')
    parts = figure.subfigures(len(panels), 1, squeeze=False)[:, 0]
    for part, (data, some), line in zip(parts, datasets.items(), panels):
        part.suptitle(shorten_middle(data, int(11 * width)), fontsize=9, weight='bold', parse_math=False)
        sizes = [size for _, _, size in line]
        all_axes = part.subplots(1, len(line), squeeze=False, gridspec_kw=dict(width_ratios=sizes))[0]
        for axes, (unit, protocol, _) in zip(all_axes, line):
            if protocol:
                axes.set_title(protocol, fontsize=9, parse_math=False)
                _draw_curves(axes, some, protocol, styles)
            else:
                _draw_bars(axes, some, unit, styles)
            axes.set_ylabel(unit, fontsize=8, parse_math=False)
            axes.tick_params(labelsize=8)
            axes.spines[['top', 'right']].set_visible(False)
            axes.grid(axis='y', alpha=0.3)
            axes.set_axisbelow(True)
    # Matplotlib leaves out labels that start with an underscore, and reads dollars as mathematics.
    keys = [Line2D([], [], linewidth=4, **styles[sha256]) for sha256 in labels]
    legend = figure.legend(keys, ['-'] * len(keys), loc='outside lower center', ncols=columns, frameon=False, fontsize=8)
    for text, label in zip(legend.get_texts(), labels.values()):
        text.set(text=label, parse_math=False)
    figure.savefig(path, dpi=DPI)
    return figure


def _panels(rows: Sequence[Row]) -> list[tuple[str, str, float]]:
    """Unit, protocol and width in inches of a dataset's panels: bars of each unit, then curves over several shots."""
    groups = main_metrics(rows)
    bars = {unit: sum(own == unit for _, _, own in groups) for unit in dict.fromkeys(unit for _, _, unit in groups)}
    panels = [(unit, '', 1.2 + count * max(1.2, 0.24 * len(rows))) for unit, count in bars.items()]
    for protocol in dict.fromkeys(name for row in rows for name in row.protocols):
        shots = {n: metric.unit for row in rows for n, metric in _shots(row, protocol).items()}
        if len(shots) > 1:
            panels.append((next(iter(shots.values())), protocol, 3.6))
    return panels


def _shots(row: Row, protocol: str) -> dict[int, Any]:
    """Few-shot accuracies: number of training images a class -> metric, in order."""
    metrics = row.protocols[protocol].metrics if protocol in row.protocols else {}
    return dict(sorted((int(name[:-5]), metrics[name]) for name in metrics if re.fullmatch(r'[1-9]\d*-shot', name)))


def _draw_bars(axes: Axes, rows: Sequence[Row], unit: str, styles: Mapping[str, dict]) -> None:
    """Draw a group of bars a protocol."""
    groups = [(protocol, main) for protocol, main, own in main_metrics(rows) if own == unit]
    bar = 0.84 / max(len(rows), 2)
    for place, row in enumerate(rows):
        found = [row.protocols[name].metrics.get(main) if name in row.protocols else None for name, main in groups]
        found = [None if metric is None or metric.unit != unit or isnan(metric.mean) else metric for metric in found]
        bars = axes.bar(
            [group + (place - (len(rows) - 1) / 2) * bar for group in range(len(groups))],
            [metric.mean if metric else 0 for metric in found],
            0.86 * bar,
            yerr=[metric.std or 0 if metric else 0 for metric in found],
            color=styles[row.sha256]['color'],
            ecolor='0.45',
            label=row.sha256,
        )
        texts = [f'{metric.mean:.1f}' if metric else '–' for metric in found]
        axes.bar_label(bars, texts, padding=3, fontsize=7, rotation=90 if len(rows) > FEW else 0)
    axes.margins(x=0.02, y=0.25 if len(rows) > FEW else 0.12)  # above the highest bar stands its value
    axes.axhline(0, color='0.25', linewidth=0.6)
    names = ['\n'.join(shorten_middle(name, METRIC) for name in group) for group in groups]
    axes.set_xticks(range(len(groups)), names, parse_math=False)


def _draw_curves(axes: Axes, rows: Sequence[Row], protocol: str, styles: Mapping[str, dict]) -> None:
    """Draw accuracy over the number of training images a class, a line a checkpoint."""
    for row in rows:
        metrics = _shots(row, protocol)
        if metrics:
            means = [metric.mean for metric in metrics.values()]
            deviations = [metric.std or 0 for metric in metrics.values()]
            axes.errorbar(list(metrics), means, deviations, capsize=2, label=row.sha256, markersize=5, **styles[row.sha256])
    axes.set_xscale('log', base=2)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=8))
    axes.xaxis.set_major_formatter('{x:g}')
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel('training images per class', fontsize=8)
