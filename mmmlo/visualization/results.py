"""Results of evaluations."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import isnan, log2
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedLocator, NullLocator

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

# Sizes in inches and points.
HEIGHT = 2.3
BAR = 0.36
NARROW_BAR = 0.19  # with more bars in a group than FEW, whose values stand upright
FEW = 3
GROUP_GAP = 0.3
CURVES = 3.1
SPREAD = 0.06  # share of the axis of shots over which curves stand beside each other
LEFT, RIGHT, TOP, BOTTOM = 0.62, 0.15, 0.36, 0.52
LEGEND_ROW, LEGEND_KEY = 0.17, 0.7
TEXT, SMALL = 8, 7
DPI = 150


@dataclass(frozen=True)
class _Panel:
    """One pair of axes: bars of what has one unit, or curves over shots where there is a ``protocol``."""

    rows: Sequence[Row]
    title: str
    unit: str
    width: float
    protocol: str = ''


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
        ValueError: If no row has a result.
    """
    rows = [row for row in rows if row.protocols]
    if not rows:
        raise SettingError('there is nothing to draw: no row has the result of a protocol.')
    labels = row_labels(rows, LABEL)
    styles = {sha256: index for index, sha256 in enumerate(labels)}
    panels = [_panels(data, some) for data, some in group_by_data(rows).items()]

    key_width = LEGEND_KEY + max(_inches(label) for label in labels.values())
    width = max(key_width + 0.2, *(sum(LEFT + panel.width + RIGHT for panel in line) for line in panels))
    columns = min(len(labels), max(1, int((width - 0.1) / key_width)))
    legend = 0.15 + LEGEND_ROW * -(-len(labels) // columns)
    line_height = TOP + HEIGHT + BOTTOM
    height = line_height * len(panels) + legend

    figure = Figure(figsize=(width, height))
    for index, line in enumerate(panels):
        left, lower = LEFT, height - index * line_height - TOP - HEIGHT
        for panel in line:
            axes = figure.add_axes((left / width, lower / height, panel.width / width, HEIGHT / height), label=panel.title)
            (_draw_curves if panel.protocol else _draw_bars)(axes, panel, styles)
            fits = int(len(panel.title) * panel.width / max(_inches(panel.title, 9, 'bold'), 0.01))
            title = shorten_middle(panel.title, fits)
            axes.set_title(title, fontsize=9, weight='bold', loc='left', parse_math=False)
            axes.set_ylabel(panel.unit, fontsize=TEXT, parse_math=False)
            axes.tick_params(labelsize=TEXT, width=0.6, length=3)
            axes.spines[['top', 'right']].set_visible(False)
            left += panel.width + RIGHT + LEFT
    _draw_legend(figure, labels, styles, columns, any(panel.protocol for line in panels for panel in line))
    figure.savefig(path, dpi=DPI)
    return figure


def _panels(data: str, rows: Sequence[Row]) -> list[_Panel]:
    """List the panels of a dataset: bars for each unit, then curves for each protocol with several numbers of shots."""
    panels = []
    groups = main_metrics(rows)
    for unit in dict.fromkeys(unit for _, _, unit in groups):
        pitches = sum(_pitch(protocol, main, len(rows)) for protocol, main, u in groups if u == unit)
        # Wide enough for a title that says something.
        panels.append(_Panel(rows, data, unit, max(pitches, min(_inches(data, 9, 'bold') + 0.1, CURVES))))
    for protocol in dict.fromkeys(name for row in rows for name in row.protocols):
        curves = [_shots(row, protocol) for row in rows]
        if len({shots for curve in curves for shots in curve}) > 1:
            unit = next(row.protocols[protocol].metrics[f'{shots}-shot'].unit
                        for row, curve in zip(rows, curves) for shots in curve)
            panels.append(_Panel(rows, protocol, unit, CURVES, protocol))
    return panels


def _pitch(protocol: str, main: str, bars: int) -> float:
    """Inches from one group of bars to the next: what the bars take, or the text below them."""
    text = max(_inches(line) for line in _tick_lines(protocol, main))
    return max(bars * (BAR if bars <= FEW else NARROW_BAR) + GROUP_GAP, text + 0.15)


def _tick_lines(protocol: str, main: str) -> list[str]:
    return [shorten_middle(name, METRIC) for name in (protocol, main)]


def _shots(row: Row, protocol: str) -> dict[int, str]:
    """Find the metrics of few-shot accuracies: number of training images a class -> name of the metric, in order."""
    result = row.protocols.get(protocol)
    found = {int(name[:-5]): name for name in (result.metrics if result else ()) if re.fullmatch(r'[1-9]\d*-shot', name)}
    return dict(sorted(found.items()))


def _draw_bars(axes: Axes, panel: _Panel, styles: Mapping[str, int]) -> None:
    """Draw a group of bars a protocol. The x axis runs in inches, so that nothing depends on the number of groups."""
    groups = [(protocol, main) for protocol, main, unit in main_metrics(panel.rows) if unit == panel.unit]
    pitches = [_pitch(protocol, main, len(panel.rows)) for protocol, main in groups]
    upright = len(panel.rows) > FEW
    bar = NARROW_BAR if upright else BAR
    left = (panel.width - sum(pitches)) / 2
    centres, highest, lowest = [], 0.0, 0.0
    texts: list[tuple[float, float, str]] = []
    for (protocol, main), pitch in zip(groups, pitches):
        centres.append(left + pitch / 2)
        for place, row in enumerate(panel.rows):
            x = centres[-1] + (place - (len(panel.rows) - 1) / 2) * bar
            result = row.protocols.get(protocol)
            metric = result.metrics.get(main) if result is not None and result.main == main else None
            if metric is None or metric.unit != panel.unit or isnan(metric.mean):
                texts.append((x, 0, '–'))
                continue
            style = styles[row.sha256]
            axes.bar(
                x, metric.mean, 0.86 * bar, color=COLOURS[style % len(COLOURS)], edgecolor=EDGE, linewidth=0.5,
                hatch=_guise(HATCHES, style), label=f'{row.sha256}/{protocol}', gid=f'{protocol}/{main}')
            top = max(metric.mean, 0)
            if metric.std is not None:
                # In grey, with a white seam, to be seen on black as well as on white.
                for colour, width in (('white', 2.2), ('0.35', 1.0)):
                    axes.errorbar(
                        x, metric.mean, metric.std, ecolor=colour, elinewidth=width, capsize=2, capthick=width, fmt='none')
                top = max(top, metric.mean + metric.std)
                lowest = min(lowest, metric.mean - metric.std if metric.mean < 0 else 0)
            highest, lowest = max(highest, top), min(lowest, metric.mean)
            texts.append((x, top, f'{metric.mean:.1f}'))
        left += pitch
    for x, y, text in texts:
        axes.annotate(
            text, (x, y), (0, 3.5), textcoords='offset points', ha='center', va='bottom', fontsize=SMALL,
            rotation=90 if upright and text != '–' else 0)
    # Above the highest bar stands its value.
    longest = max(_inches(text, SMALL) for _, _, text in texts)
    room = 0.12 + (longest if upright else SMALL / 72)
    top = (highest - lowest) * HEIGHT / (HEIGHT - room) + lowest if highest > lowest else 1
    axes.set(xlim=(0, panel.width), ylim=(1.05 * lowest, top))
    if panel.unit == 'per cent':
        axes.yaxis.set_major_locator(FixedLocator([tick for tick in axes.get_yticks() if tick <= 100]))
    if lowest < 0:
        axes.axhline(0, color=EDGE, linewidth=0.6)
    names = ['\n'.join(_tick_lines(*group)) for group in groups]
    axes.set_xticks(centres, names, parse_math=False)
    axes.grid(axis='y', alpha=0.3)
    axes.set_axisbelow(True)


def _draw_curves(axes: Axes, panel: _Panel, styles: Mapping[str, int]) -> None:
    """Draw accuracy over the number of training images a class, a line a checkpoint."""
    present = [row for row in panel.rows if _shots(row, panel.protocol)]
    ticks = sorted({shots for row in present for shots in _shots(row, panel.protocol)})
    for place, row in enumerate(present):
        metrics = row.protocols[panel.protocol].metrics
        points = [(shots, metrics[name]) for shots, name in _shots(row, panel.protocol).items()]
        # A little beside each other, so that whiskers of close curves can be seen.
        shift = (ticks[-1] / ticks[0]) ** (SPREAD * (place - (len(present) - 1) / 2) / max(len(present) - 1, 5))
        style = styles[row.sha256]
        axes.errorbar(
            [shots * shift for shots, _ in points], [metric.mean for _, metric in points],
            [metric.std or 0 for _, metric in points], color=COLOURS[style % len(COLOURS)], elinewidth=1, capsize=2,
            label=row.sha256, **_line(style))
    axes.set_xscale('log', base=2)
    shown = ticks[:1]
    for tick in ticks[1:]:  # numbers that would run into each other are left out
        inches = CURVES / 1.1 * log2(tick / shown[-1]) / log2(ticks[-1] / ticks[0])
        if inches > (_inches(str(tick)) + _inches(str(shown[-1]))) / 2 + 0.06:
            shown.append(tick)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(shown, [str(tick) for tick in shown])
    axes.set_xlabel('training images per class', fontsize=TEXT)
    axes.grid(alpha=0.3)


def _draw_legend(figure: Figure, labels: Mapping[str, str], styles: Mapping[str, int], columns: int, curves: bool) -> None:
    """Say below everything which colour and which marker a checkpoint has."""
    keys: list[Any] = []
    for sha256 in labels:
        style = styles[sha256]
        colour = COLOURS[style % len(COLOURS)]
        patch = Patch(facecolor=colour, edgecolor=EDGE, linewidth=0.5, hatch=_guise(HATCHES, style))
        line = Line2D([], [], color=colour, **_line(style))
        keys.append((patch, line) if curves else patch)
    # Matplotlib leaves out labels that start with an underscore, and reads dollars as mathematics.
    legend = figure.legend(
        keys, ['-'] * len(keys), loc='lower center', ncols=columns, frameon=False, fontsize=TEXT, columnspacing=1.6,
        handlelength=3.6 if curves else 1.8, borderaxespad=0.3, handler_map={tuple: HandlerTuple(ndivide=None, pad=0.6)})
    for text, label in zip(legend.get_texts(), labels.values()):
        text.set(text=label, parse_math=False)


def _line(style: int) -> dict[str, Any]:
    return dict(
        linestyle=_guise(LINES, style), linewidth=1.4, marker=MARKERS[style % len(MARKERS)], markersize=5,
        markeredgecolor=EDGE, markeredgewidth=0.5)


def _guise(kinds: Sequence[str], style: int) -> str:
    return kinds[style // len(COLOURS) % len(kinds)]


@cache
def _inches(text: str, size: float = TEXT, weight: str = 'normal') -> float:
    """Measure a text, which needs no picture."""
    path = TextPath((0, 0), text.replace('$', r'\$'), size=size, prop=FontProperties(weight=weight))
    # The curves' control points may lie a little outside, which does no harm here; exact extents take ten times as long.
    return float(path.vertices[:, 0].max()) / 72 if len(path.vertices) else 0.0
