"""Loss curves of all levels."""

import json
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

LEVELS = ('pretrain', 'finetune', 'masking')


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
    figure = Figure(figsize=(4.2 * len(levels), 3.2), layout='constrained')
    for axes, level in zip(figure.subplots(1, len(levels), squeeze=False)[0], levels):
        for name, records in runs.items():
            keys = (f'{level}/loss', 'loss') if level == levels[0] else (f'{level}/loss',)
            points = [(r['step'], r[key]) for r in records for key in keys if key in r]
            if points:
                axes.plot(*zip(*points), label=name)
        axes.set(title=level, xlabel='pretrain step', ylabel='loss')
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
