"""Makes one HTML file of runs, which opens without a network."""

import base64
import gzip
import io
import json
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image
from plotly.offline import get_plotlyjs

from mmmlo.evaluation.results import Metric, Row, group_by_data, main_metrics
from mmmlo.utils.whole_file import write_whole

from ..results import COLOURS
from .run import Points, Run
from .words import judge, telemetry

__all__ = ['write_report']

PICTURE_BYTES = 1_900_000  # of 5 MB; plotly.js takes two, compressed
CURVE_BYTES = 700_000
MOST_POINTS = 400  # of a curve
_TIME = '%Y-%m-%d %H:%M:%S'
# Those that are seen on white and on black.
_COLOURS = (*COLOURS[:6], '#8C8C8C', '#9467BD', '#8C564B', '#BCBD22')
# Title, the names in it, and whether it is open at first; the first section that has a name takes it.
_SECTIONS = (
    ('Losses of all levels', r'loss', True),
    ('Masks', r'^(masks|worth)/', False),
    ('Gradients and hypergradients', r'grad|norm|cosine|skips', False),
    ('Seconds and memory', r'time$|seconds$|memory$', False),
    ('Rates and schedules', r'', False),
)


def write_report(runs: Sequence[Run], path: str, results: Iterable[Row] = (), refresh: int | None = None) -> None:
    """Write the page of one or several runs, as a whole or not at all.

    Runs that differ in seed and work dir alone are a group, of one colour.

    Args:
        runs (Sequence[Run]): The runs, at least one.
        path (str): Where to write it.
        results (Iterable[Row]): Of evaluations, beside those in the work dirs.
        refresh (int, optional): Seconds after which a browser is to load the page anew. Defaults to None: it does not.
    """
    groups = _groups(runs)
    colours = {run.path: _COLOURS[i % len(_COLOURS)] for i, some in enumerate(groups.values()) for run in some}
    films = [_film(run, PICTURE_BYTES // len(runs)) for run in runs]
    data = dict(
        sections=_sections(runs),
        runs=[dict(label=run.label, colour=colours[run.path]) for run in runs],
        films=[film for film in films if film],
    )
    page = dict(
        title=runs[0].label if len(runs) == 1 else f'{len(runs)} runs',
        written=time.strftime(_TIME),
        refresh=refresh,
        runs=[dict(run=run, colour=colours[run.path], film=film, **_words(run)) for run, film in zip(runs, films)],
        groups={label: some[-1].config_text for label, some in groups.items() if some[-1].config_text},
        comparison=_comparison(groups) if len(runs) > 1 else None,
        evaluations=_evaluations([*results, *(row for run in runs for row in run.results)]),
        sections=data['sections'],
        film_count=len(data['films']),
        data=json.dumps(data, separators=(',', ':')).replace('<', '\\u003c'),
        plotly=base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode(),
    )
    environment = Environment(loader=PackageLoader(__package__, '.'), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    write_whole(path, environment.get_template('page.html').render(page))


def _groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group runs that differ in seed and work dir alone, by what their labels share."""
    places = ('work_dir', 'randomness', 'experiment_name', 'load_from', 'resume')
    same: dict[str, list[Run]] = {}
    for run in runs:
        settings = {name: value for name, value in run.config.items() if name not in places}
        same.setdefault(json.dumps(settings, sort_keys=True, default=str) if settings else run.path, []).append(run)
    groups: dict[str, list[Run]] = {}
    for some in same.values():
        label = some[0].label if len(some) == 1 else re.sub(r'[/_-]*(seed)?[/_-]*\d*$', '', some[0].label) or some[0].label
        groups[label if label not in groups else some[0].label] = some
    return groups


def _words(run: Run) -> dict[str, Any]:
    return dict(verdict=judge(run), facts=_facts(run), telemetry=telemetry(run), cost=_cost(run))


def _facts(run: Run) -> list[tuple[str, str]]:
    """What ran, where and on what; and how far it is."""
    steps = [points[-1][0] for points in run.curves.values()]
    epochs = (run.config.get('train_cfg') or {}).get('max_epochs')
    facts = [('folder', run.path)]
    if steps:
        facts.append(('progress', f'iteration {max(steps):.0f}, epoch {run.epoch}' + (f' of {epochs}' if epochs else '')))
        facts.append(('last line', time.strftime(_TIME, time.localtime(run.logged))))
    if not run.starts:
        return facts
    first, last = run.starts[0], run.starts[-1]
    versions, git, data = last.get('versions') or {}, last.get('git') or {}, last.get('data') or {}
    changed = git.get('changed') or []
    found: dict[str, list[str]] = {}
    for name, entry in data.items():
        entry = entry or {}
        found.setdefault(f'{entry.get("images", "?")} of {entry.get("dataset", "?")}', []).append(name.rpartition('.')[2])
    machine = f'{versions.get("gpu", "CPU")}, processes: {last.get("processes", 1)}, {versions.get("platform", "?")}'
    shown = [f'{name} {versions[name]}' for name in ('mmmlo', 'torch', 'mmengine', 'python') if name in versions]
    return facts + [
        ('command', ' '.join(map(str, last.get('command') or []))),
        ('started', str(first.get('started')) + (f', and again {len(run.starts) - 1} times' if len(run.starts) > 1 else '')),
        ('seed', str(last.get('seed'))),
        ('commit', f'{str(git.get("commit", "unknown"))[:12]}' + (f' and {len(changed)} changed files' if changed else '')),
        ('images', '; '.join(f'{what} ({", ".join(names)})' for what, names in found.items())),
        ('machine', machine),
        ('versions', ', '.join(shown)),
    ]


def _cost(run: Run) -> list[tuple[str, str, str]]:
    """A level, the seconds of its update, its memory; then the whole run."""
    rows = []
    for name in run.curves:
        level, _, what = name.rpartition('/')
        if what == 'seconds':
            memory = run.last(f'{level}/memory')
            rows.append((level, f'{run.last(name):.3g} s an update', f'{memory:.0f} MiB' if memory else ''))
    if run.seconds:
        memory = run.last('memory')
        step, spent = run.seconds[-1]
        pace = f'{run.last("time") or 0:.3g} s an iteration'
        rows.append((f'{step:.0f} iterations', f'{_duration(spent)}, {pace}', f'{memory:.0f} MiB' if memory else ''))
    return rows


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f'{hours} h {rest // 60:02d} min' if hours else f'{rest // 60} min {rest % 60:02d} s'


def _comparison(groups: dict[str, list[Run]]) -> dict[str, Any]:
    """What came out, a row a group, mean and deviation over seeds; and metrics of validation less the first group's."""
    runs = [run for some in groups.values() for run in some]
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    losses = list(dict.fromkeys(name for run in runs for name in run.curves if name.endswith('/loss')))
    names = [*metrics, *losses, *(['masks/overlap'] if any('masks/overlap' in run.curves for run in runs) else [])]
    rows, first = [], next(iter(groups.values()))
    for label, some in groups.items():
        cells = []
        for name in names:
            count = 1 if name in metrics else 5
            own = {_seed(run): value for run in some if (value := run.last(name, count)) is not None}
            base = {_seed(run): value for run in first if (value := run.last(name, count)) is not None}
            text = _spread(Metric([*own.values()])) if own else '–'
            if name in metrics and some is not first and own and base:
                shared = [seed for seed in own if seed in base]
                pairs = Metric([own[seed] - base[seed] for seed in shared]) if len(shared) > 1 else None
                difference = pairs or Metric([Metric([*own.values()]).mean - Metric([*base.values()]).mean])
                text += f' ({_spread(difference, "+")})'
            cells.append(text)
        spent = [run.seconds[-1][1] for run in some if run.seconds]
        rows.append((label, len(some), judge(some[-1]).word, cells, _duration(sum(spent) / len(spent)) if spent else '–'))
    return dict(names=names, rows=rows)


def _seed(run: Run) -> Any:
    return run.starts[-1].get('seed') if run.starts else run.path


def _spread(metric: Metric, sign: str = '') -> str:
    return f'{metric.mean:{sign}.4g}' + (f' ± {metric.std:.2g}' if metric.std is not None else '')


def _evaluations(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A table a data set: a row a checkpoint, a column the main metric of a protocol."""
    tables = []
    for data, some in group_by_data({(row.sha256, row.data): row for row in rows}.values()).items():
        columns = main_metrics(some)
        cells = []
        for row in some:
            found = [row.protocols[name].metrics.get(main) if name in row.protocols else None for name, main, _ in columns]
            cells.append((row.label, row.method, ['–' if metric is None else str(metric) for metric in found]))
        tables.append(dict(data=data, columns=[f'{name}: {main} ({unit})' for name, main, unit in columns], rows=cells))
    return tables


def _sections(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The charts: a title, whether it is open, and for each number a curve a run, (place of the run, x, y)."""
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    names = list(dict.fromkeys(name for run in runs for name in run.curves if name not in metrics))
    most = int(np.clip(CURVE_BYTES / 20 / max(1, sum(len(run.curves) for run in runs)), 20, MOST_POINTS))
    charts: dict[str, list[dict]] = {}
    for name in metrics:
        for axis in ('iterations', 'seconds of training'):
            charts.setdefault('Accuracy', []).append(_chart(name, axis, runs, most))
    for name in names:
        title = next(title for title, pattern, _ in _SECTIONS if re.search(pattern, name))
        charts.setdefault(title, []).append(_chart(name, 'iterations', runs, most))
    opened = {'Accuracy': True} | {title: shown for title, _, shown in _SECTIONS}
    return [dict(title=title, open=shown, charts=charts[title]) for title, shown in opened.items() if title in charts]


def _chart(name: str, axis: str, runs: Sequence[Run], most: int) -> dict[str, Any]:
    curves = []
    for place, run in enumerate(runs):
        points = _thin(run.curves.get(name, []), most)
        if points:
            x, y = (np.array(values) for values in zip(*points))
            if axis != 'iterations' and run.seconds:
                steps, spent = zip(*run.seconds)
                x = np.interp(x, steps, spent)
            curves.append((place, [float(f'{value:.6g}') for value in x], [float(f'{value:.5g}') for value in y]))
    return dict(title=name, axis=axis, curves=curves)


def _thin(points: Points, most: int) -> Points:
    """Average neighbours until there are at most that many."""
    if len(points) <= most:
        return points
    return [tuple(some.mean(axis=0)) for some in np.array_split(np.array(points), most)]


def _film(run: Run, budget: int) -> dict[str, Any] | None:
    """The pictures of masks over the run, as many as have a place: iterations, sheets, frequencies, and rows of a sheet."""
    sheets, frequencies = run.pictures.get('masks', {}), run.pictures.get('mask_frequency', {})
    steps, rows, frames = sorted(sheets), 0, dict[int, tuple[str, str | None]]()
    # The last one, then ever finer, so that what has no place is missed evenly.
    strides = [2**i for i in range(len(steps).bit_length(), -1, -1)]
    for step in dict.fromkeys([*steps[-1:], *(step for stride in strides for step in steps[::stride])]):
        try:
            sheet, rows = _encode(sheets[step])
            frequency = _encode(frequencies[step])[0] if step in frequencies else None
        except OSError as error:
            run.missing.append(f'The picture of iteration {step} cannot be read: {error}')
            continue
        budget -= len(sheet) + len(frequency or '')
        if budget < 0:
            break
        frames[step] = sheet, frequency
    if not frames:
        return None
    shown = sorted(frames)
    pictures, places = zip(*(frames[step] for step in shown))
    return dict(label=run.label, steps=shown, sheets=pictures, frequencies=places, rows=rows)


def _encode(path: str) -> tuple[str, int]:
    """A picture as a URL of its own, and how many times four squares it is high."""
    with Image.open(path) as picture:
        buffer = io.BytesIO()
        picture.convert('RGB').save(buffer, 'WEBP', quality=70)
        rows = round(picture.height / (picture.width / 4))
    return f'data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}', rows
