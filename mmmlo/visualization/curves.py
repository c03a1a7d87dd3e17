"""What a run logged, as curves: the losses of all levels, and the curriculum of CL-MAE."""

import json
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from mmmlo.utils.errors import SettingError

LEVELS = ('pretrain', 'finetune', 'masking')
# Keys of the log -> what they are. The first is there to be looked at, the second is what the masker minimizes.
TERMS = {
    'masking/reconstruction': 'reconstruction',
    'masking/loss_reconstruction': 'factor x reconstruction',
}


def read_scalars(path: str) -> list[dict]:
    """Read what mmengine's ``LocalVisBackend`` logged: one JSON object a line, in ``<log dir>/vis_data/scalars.json``.

    Args:
        path (str): The file.

    Returns:
        list[dict]: The records of training, in order; those of validation have no loss and are left out.
    """
    with open(path) as file:
        records = [json.loads(line) for line in file if line.strip()]
    return [record for record in records if any('loss' in name for name in record)]


def plot_losses(runs: Mapping[str, Sequence[Mapping]], path: str, levels: Sequence[str] = LEVELS) -> None:
    """Draw the loss of each level over pretrain steps, a panel a level and a line a run.

    Args:
        runs (Mapping[str, Sequence[Mapping]]): Name of a run -> its records; see :func:`read_scalars`. A run of one level
            logs its loss as ``loss``, a multi-level run as ``<level>/loss``.
        path (str): Where to write the picture.
        levels (Sequence[str]): The levels, the lowest first.
    """
    panels = []
    for level in levels:
        keys = (f'{level}/loss', 'loss') if level == levels[0] else (f'{level}/loss', )
        panels.append((level, 'loss', {name: _points(records, *keys) for name, records in runs.items()}))
    _plot(panels, 'pretrain step', path)


def plot_curriculum(source: Sequence[float] | str, path: str) -> None:
    """Draw the curriculum's factor and, of a run, the masking level's reconstruction term beside it.

    Args:
        source (Sequence[float] | str): A factor for each epoch or iteration, see
            :func:`mmmlo.engine.curriculum_factor`; or the path of a run's ``scalars.json``, see :func:`read_scalars`. What
            of the reconstruction term is not in the log is left out.
        path (str): Where to write the picture.

    Raises:
        SettingError: The log has no factor.
    """
    if not isinstance(source, str):
        _plot([('curriculum', 'factor', {'': list(enumerate(source))})], 'epoch or iteration', path)
        return
    records = read_scalars(source)
    factors = _points(records, 'curriculum_factor')
    if not factors:
        raise SettingError(f'{source} has no curriculum_factor; the run needs a mmmlo.CurriculumHook in custom_hooks')
    terms = {name: _points(records, key) for key, name in TERMS.items()}
    panels = [('curriculum', 'factor', {'': factors})] + ([('masking', 'loss', terms)] if any(terms.values()) else [])
    _plot(panels, 'iteration', path)


def _points(records: Sequence[Mapping], *keys: str) -> list[tuple[float, float]]:
    return [(record['step'], record[key]) for record in records for key in keys if key in record]


def _plot(panels: Sequence[tuple[str, str, Mapping[str, list]]], unit: str, path: str) -> None:
    """Draw panels: title, what is measured, and name of a line -> its points."""
    figure = Figure(figsize=(4.2 * len(panels), 3.2), layout='constrained')
    for axes, (title, ylabel, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        lines = {name: points for name, points in lines.items() if points}
        for name, points in lines.items():
            axes.plot(*zip(*points), label=name, drawstyle='steps-post' if ylabel == 'factor' else 'default')
        axes.set(title=title, xlabel=unit, ylabel=ylabel)
        axes.grid(alpha=0.3)
        if panels[0][1] == 'factor':  # of either sign
            axes.axhline(0, color='0.6', linewidth=0.8)
        if any(lines):
            axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
