"""Results of evaluations."""

import re
from collections.abc import Mapping, Sequence
from math import isnan, log2
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from mmmlo.evaluation.results import Row, group_by_data, main_metrics, row_labels, shorten_middle
from mmmlo.utils.errors import SettingError

# Okabe and Ito's colours, which are told apart with every kind of colour vision; yellow last, the faintest on white.
COLOURS = ('#0072B2', '#E69F00', '#009E73', '#D55E00', '#CC79A7', '#56B4E9', '#000000', '#F0E442')
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '*')
# Beyond eight checkpoints colours come again, in another guise.
HATCHES = ('', '////', '....')
LINES = ('-', '--', ':')
EDGE = '0.25'

LABEL = 44  # most characters of a checkpoint's label
METRIC = 16  # of a line below a group of bars
FEW = 3  # with more bars in a group, their values stand upright
HEIGHT, CURVES, CHARACTER = 3.1, 3.6, 0.078  # inches of a row, of curves over shots, and of a character
TEXT, SMALL = 8, 7
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
    styles = {sha256: _style(index) for index, sha256 in enumerate(labels)}
    datasets = group_by_data(rows)
    panels = [_panels(some) for some in datasets.values()]

    key = CHARACTER * max(map(len, labels.values())) + 0.6
    width = max(key, *(sum(panel_width for _, _, panel_width in line) for line in panels))
    columns = min(len(labels), int(width / key))
    height = HEIGHT * len(panels) + 0.2 - 0.18 * (-len(labels) // columns)
    figure = Figure(figsize=(width, height), layout='constrained')
    for part, (data, some), line in zip(figure.subfigures(len(panels), 1, squeeze=False)[:, 0], datasets.items(), panels):
        widths = [panel_width for _, _, panel_width in line]
        grid = part.add_gridspec(1, len(line) + 1, width_ratios=[*widths, max(width - sum(widths), 1e-3)])
        for place, (unit, protocol, panel_width) in enumerate(line):
            axes = part.add_subplot(grid[place])
            if protocol:
                _draw_curves(axes, some, protocol, styles)
            else:
                _draw_bars(axes, some, unit, styles)
            title = shorten_middle(protocol or data, int(panel_width / CHARACTER) - 10)
            axes.set_title(title, fontsize=9, weight='bold', loc='left', parse_math=False)
            axes.set_ylabel(unit, fontsize=TEXT, parse_math=False)
            axes.tick_params(labelsize=TEXT, width=0.6, length=3)
            axes.spines[['top', 'right']].set_visible(False)
            axes.set_axisbelow(True)
    _draw_legend(figure, labels, styles, columns, any(protocol for line in panels for _, protocol, _ in line))
    figure.savefig(path, dpi=DPI)
    return figure


def _style(index: int) -> dict[str, Any]:
    turn = index // len(COLOURS)
    return dict(
        color=COLOURS[index % len(COLOURS)], marker=MARKERS[index % len(MARKERS)],
        hatch=HATCHES[turn % len(HATCHES)], linestyle=LINES[turn % len(LINES)]
    )


def _panels(rows: Sequence[Row]) -> list[tuple[str, str, float]]:
    """Unit, protocol and width of a dataset's panels: bars for each unit, then curves where there are several shots."""
    panels = []
    groups = main_metrics(rows)
    bar = 0.36 if len(rows) <= FEW else 0.21  # inches
    for unit in dict.fromkeys(unit for _, _, unit in groups):
        widths = [
            max(0.4 + bar * len(rows), CHARACTER * max(map(len, _tick(protocol, main).split('\n'))))
            for protocol, main, own in groups if own == unit
        ]
        panels.append((unit, '', max(1.8, 0.9 + sum(widths))))
    for protocol in dict.fromkeys(name for row in rows for name in row.protocols):
        shots = {n: metric.unit for row in rows for n, metric in _shots(row, protocol).items()}
        if len(shots) > 1:
            panels.append((next(iter(shots.values())), protocol, CURVES))
    return panels


def _tick(protocol: str, main: str) -> str:
    return '\n'.join(shorten_middle(name, METRIC) for name in (protocol, main))


def _shots(row: Row, protocol: str) -> dict[int, Any]:
    """Few-shot accuracies: number of training images a class -> metric, in order."""
    metrics = row.protocols[protocol].metrics if protocol in row.protocols else {}
    return dict(sorted((int(name[:-5]), metrics[name]) for name in metrics if re.fullmatch(r'[1-9]\d*-shot', name)))


def _draw_bars(axes: Axes, rows: Sequence[Row], unit: str, styles: Mapping[str, dict]) -> None:
    """Draw a group of bars a protocol."""
    groups = [(protocol, main) for protocol, main, own in main_metrics(rows) if own == unit]
    bar, upright = 0.84 / max(len(rows), 2), len(rows) > FEW
    for place, row in enumerate(rows):
        means, deviations, texts = [], [], []
        for protocol, main in groups:
            result = row.protocols.get(protocol)
            metric = result.metrics[main] if result is not None and result.main == main else None
            if metric is None or metric.unit != unit or isnan(metric.mean):
                metric = None
            means.append(metric.mean if metric else 0)
            deviations.append(metric.std or 0 if metric else 0)
            texts.append(f'{metric.mean:.1f}' if metric else '–')
        style = styles[row.sha256]
        bars = axes.bar(
            [group + (place - (len(rows) - 1) / 2) * bar for group in range(len(groups))], means, 0.86 * bar,
            yerr=deviations, ecolor='0.45', capsize=0, color=style['color'], edgecolor=EDGE, linewidth=0.5,
            hatch=style['hatch'], label=row.sha256
        )
        axes.bar_label(bars, texts, padding=3, fontsize=SMALL, rotation=90 if upright else 0)
    # Above the highest bar stands its value.
    axes.margins(x=0.02, y=0.25 if upright else 0.12)
    low, high = axes.get_ylim()
    high = max(high, -0.12 * low)  # room for a dash beside bars below 0
    ticks = [tick for tick in axes.get_yticks() if low <= tick <= high and not (unit == 'per cent' and tick > 100)]
    axes.set(xlim=(-0.55, len(groups) - 0.45), yticks=ticks, ylim=(low, high))
    axes.axhline(0, color=EDGE, linewidth=0.6)
    axes.set_xticks(range(len(groups)), [_tick(*group) for group in groups], parse_math=False)
    axes.grid(axis='y', alpha=0.3)


def _draw_curves(axes: Axes, rows: Sequence[Row], protocol: str, styles: Mapping[str, dict]) -> None:
    """Draw accuracy over the number of training images a class, a line a checkpoint."""
    present = {row.sha256: _shots(row, protocol) for row in rows if _shots(row, protocol)}
    ticks = sorted({shots for metrics in present.values() for shots in metrics})
    for place, (sha256, metrics) in enumerate(present.items()):
        # A little beside each other, so that whiskers of close curves can be seen.
        shift = (ticks[-1] / ticks[0]) ** (0.06 * (place - (len(present) - 1) / 2) / max(len(present) - 1, 5))
        style = {key: value for key, value in styles[sha256].items() if key != 'hatch'}
        axes.errorbar(
            [shots * shift for shots in metrics], [metric.mean for metric in metrics.values()],
            [metric.std or 0 for metric in metrics.values()], elinewidth=1, capsize=2, label=sha256, markersize=5,
            markeredgecolor=EDGE, markeredgewidth=0.5, linewidth=1.4, **style
        )
    axes.set_xscale('log', base=2)
    shown = ticks[:1]
    for tick in ticks[1:]:  # numbers that would run into each other are left out
        if log2(tick / shown[-1]) > 0.1 * log2(ticks[-1] / ticks[0]):
            shown.append(tick)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(shown, [str(tick) for tick in shown])
    axes.set_xlabel('training images per class', fontsize=TEXT)
    axes.grid(alpha=0.3)


def _draw_legend(
    figure: Figure, labels: Mapping[str, str], styles: Mapping[str, dict], columns: int, curves: bool
) -> None:
    """Say below everything which colour and which marker a checkpoint has."""
    keys: list[Any] = []
    for style in (styles[sha256] for sha256 in labels):
        patch = Patch(facecolor=style['color'], edgecolor=EDGE, linewidth=0.5, hatch=style['hatch'])
        line = {key: value for key, value in style.items() if key != 'hatch'}
        keys.append((patch, Line2D([], [], markeredgecolor=EDGE, markeredgewidth=0.5, **line)) if curves else patch)
    # Matplotlib leaves out labels that start with an underscore, and reads dollars as mathematics.
    legend = figure.legend(
        keys, ['-'] * len(keys), loc='outside lower center', ncols=columns, frameon=False, fontsize=TEXT,
        handlelength=3.6 if curves else 1.8, handler_map={tuple: HandlerTuple(ndivide=None, pad=0.6)}
    )
    for text, label in zip(legend.get_texts(), labels.values()):
        text.set(text=label, parse_math=False)
