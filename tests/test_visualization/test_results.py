from itertools import combinations

import numpy as np
import pytest
from matplotlib import image
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer

from mmmlo.evaluation import Metric, ProtocolResult, Row
from mmmlo.visualization import plot_results, results

LONG = 'work_dirs/mlomae_vit-base-p16_8xb512-amp-coslr-1600e_in1k/seed{}/iter_500000.pth'


def outcome(protocol, main='top1', unit='per cent', **metrics):
    metrics = {name.replace('shot', '-shot').lstrip('_'): Metric(values, unit) for name, values in metrics.items()}
    return ProtocolResult(protocol, {}, metrics, main, 1.0)


def row(index, *outcomes, label=None, data='STL-10'):
    protocols = {result.protocol: result for result in outcomes}
    return Row(label or LONG.format(index), 'a.pth', f'{index:08d}' * 8, 'MAE', 1, data, {}, protocols)


def many(count, data='STL-10'):
    return [
        row(
            i, outcome('knn', top1=[60.0 + i]), outcome('linear', top1=[98.0 + i / 10, 99.0, 100.0]),
            outcome('few-shot', '4-shot', _1shot=[30.0 + i, 34], _2shot=[40.0, 41 + i], _4shot=[50.0 + i, 51]),
            outcome('finetune', top1=[90.0, 91.0]), data=data)
        for i in range(count)
    ]


@pytest.fixture
def draw(tmp_path, monkeypatch):
    monkeypatch.setattr(results, 'DPI', 40)  # it is the pixels that take time
    return lambda rows: plot_results(rows, str(tmp_path / 'results.png'))


def bars_of(axes):
    """The bars of each checkpoint, a protocol each."""
    return [container for container in axes.containers if isinstance(container, BarContainer)]


def titles(figure):
    return [part.get_suptitle() for part in figure.subfigs]


def texts(figure):
    """All texts that are seen, with their extent in pixels, narrowed by rounding."""
    figure.draw_without_rendering()
    legends = [text for legend in figure.legends for text in legend.get_texts()]
    found = []
    for axes in figure.axes:
        shown = [t.label1 for axis in (axes.xaxis, axes.yaxis) for t in axis.get_major_ticks()
                 if axis.get_view_interval()[0] <= t.get_loc() <= axis.get_view_interval()[1]]
        found += [axes.xaxis.label, axes.yaxis.label, axes.title, *axes.texts, *shown]
    return [(text.get_text(), text.get_window_extent().padded(-0.5)) for text in found + legends if text.get_text()]


@pytest.mark.parametrize('count', [1, 3, 8])
def test_no_text_runs_into_another_or_out_of_the_picture(draw, count):
    rows = many(count) + many(min(count, 2), data='/data/a/very/long/path/of/a/dataset/with/a/name/that/is/longer')
    figure = draw(rows)
    seen = texts(figure)
    assert len(seen) > 30  # bars, ticks, titles and keys
    for (one, first), (other, second) in combinations(seen, 2):
        assert not first.overlaps(second), (one, other)
    for text, extent in seen:
        assert extent.x0 >= 0 and extent.y0 >= 0 and extent.x1 <= figure.bbox.x1 and extent.y1 <= figure.bbox.y1, text
    for legend in figure.legends:
        assert not any(legend.get_window_extent().overlaps(axes.get_tightbbox()) for axes in figure.axes)


def test_bars_are_main_metrics_with_their_deviation(draw, tmp_path):
    rows = [
        row(0, outcome('knn', top1=[50.0], top5=[70.0]), outcome('linear', top1=[60.0, 64.0]), label='first'),
        row(1, outcome('knn', top1=[55.0]), label='second'),
    ]
    figure = draw(rows)
    (axes,) = figure.axes
    assert titles(figure) == ['STL-10'] and axes.get_ylabel() == 'per cent'
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 62 + np.sqrt(8)
    first, second = bars_of(axes)
    assert [bar.get_height() for bar in first] == [50, 62] and second[0].get_height() == 55
    assert {tuple(segment[:, 1].round(4)) for lines in axes.collections for segment in lines.get_segments()} == {
        (50, 50), (55, 55), (0, 0), (round(62 - np.sqrt(8), 4), round(62 + np.sqrt(8), 4))}
    assert [text.get_text() for text in axes.texts] == ['50.0', '62.0', '55.0', '–']
    assert [label.get_text() for label in axes.get_xticklabels()] == ['knn\ntop1', 'linear\ntop1']
    colours = [to_hex(bars[0].get_facecolor()) for bars in (first, second)]
    assert colours[0] == to_hex(first[1].get_facecolor()) != colours[1]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ['first', 'second']
    assert [to_hex(line.get_color()) for line in legend.get_lines()] == colours
    assert image.imread(tmp_path / 'results.png').shape[1] == int(figure.get_figwidth() * results.DPI)


def test_values_stand_above_whiskers(draw):
    figure = draw(many(8))
    bars = figure.axes[0]
    assert bars.texts[1].xy[1] == pytest.approx(100)  # linear: 98, 99 and 100
    assert bars.texts[1].get_text() == '99.0'
    figure.draw_without_rendering()
    assert all(text.get_window_extent().y1 <= bars.bbox.y1 + 1 for text in bars.texts)


def test_curves_over_shots(draw):
    shots = dict(_4shot=[50.0, 54.0], _1shot=[30.0], _16shot=[60.0])
    rows = [
        row(0, outcome('few-shot', '4-shot', **shots)),
        row(1, outcome('knn', top1=[50.0])),
        row(2, outcome('few-shot', '4-shot', _4shot=[51.0], _1shot=[31.0], mean=[40.0])),
    ]
    bars, curves = draw(rows).axes
    assert curves.get_xscale() == 'log' and curves.get_title() == 'few-shot'
    lines = {container.get_label(): container for container in curves.containers}
    assert list(lines) == [rows[0].sha256, rows[2].sha256]
    line, _, (whiskers,) = lines[rows[0].sha256]
    np.testing.assert_allclose(line.get_xdata(orig=False), [1, 4, 16])
    np.testing.assert_allclose(line.get_ydata(orig=False), [30, 52, 60])
    deviations = [np.ptp(segment[:, 1]) / 2 for segment in whiskers.get_segments()]
    np.testing.assert_allclose(deviations, [0, np.sqrt(8), 0], atol=1e-6)
    colours = [to_hex(lines[r.sha256][0].get_color()) for r in (rows[0], rows[2])]
    assert colours == [to_hex(results.COLOURS[i]) for i in (0, 2)]
    assert [[bar.get_height() for bar in some] for some in bars_of(bars)] == [[52, 0], [0, 50], [51, 0]]


def test_a_single_number_of_shots_is_no_curve(draw):
    assert len(draw([row(0, outcome('few-shot', '4-shot', _4shot=[50.0]))]).axes) == 1


def test_datasets_and_units_have_panels_of_their_own(draw):
    rows = [
        row(0, outcome('knn', top1=[50.0]), outcome('density', 'loss', 'nats', loss=[-1.5, -2.5])),
        row(0, outcome('upernet', 'mIoU', mIoU=[40.0]), data='ADE20K'),
        row(1, outcome('upernet', 'mIoU', mIoU=[float('nan')]), data='ADE20K'),
        row(1, data='COCO'),
    ]
    figure = draw(rows)
    assert titles(figure) == ['STL-10', 'ADE20K']
    assert [axes.get_ylabel() for axes in figure.axes] == ['per cent', 'nats', 'per cent']
    assert figure.axes[1].get_ylim()[0] < -2.5
    assert [text.get_text() for text in figure.axes[2].texts] == ['40.0', '–']
    figure.draw_without_rendering()
    assert figure.axes[2].bbox.y1 < figure.axes[0].bbox.y0


def test_labels_are_shown_as_they_are(draw):
    labels = ['_hidden', '$x', '$\\frac$', LONG]
    figure = draw([row(i, outcome('knn', top1=[50.0]), label=label, data='$a$') for i, label in enumerate(labels)])
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown[:3] == labels[:3]
    assert len(shown[3]) == results.LABEL and shown[3].startswith('work_dirs') and shown[3].endswith('iter_500000.pth')


def test_sixteen_checkpoints_look_different(draw):
    figure = draw([row(i, outcome('few-shot', '1-shot', _1shot=[30.0], _2shot=[40.0])) for i in range(16)])
    bars = [bars[0] for bars in bars_of(figure.axes[0])]
    lines = [container[0] for container in figure.axes[1].containers]
    assert len({to_hex(bar.get_facecolor()) for bar in bars}) == len({to_hex(line.get_color()) for line in lines}) == 16


def test_nothing_to_draw_is_refused(draw):
    with pytest.raises(ValueError, match='there is nothing to draw'):
        draw([row(0)])
