"""The losses that runs logged, as curves."""

import json
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

LEVELS = ('pretrain', 'finetune', 'masking')


def read_scalars(path: str) -> list[dict]:
    """Read the records of training, in order, that mmengine logged in ``<log dir>/vis_data/scalars.json``.

    Those of validation have no loss and are left out.
    """
    with open(path) as file:
        records = [json.loads(line) for line in file if line.strip()]
    return [record for record in records if any('loss' in name for name in record)]


def plot_losses(runs: Mapping[str, Sequence[Mapping]], path: str) -> None:
    """Draw the loss of each level over pretrain steps, a panel a level and a line a run.

    Args:
        runs (Mapping[str, Sequence[Mapping]]): Name of a run -> its records; see :func:`read_scalars`. A run of one level
            logs its loss as ``loss``, a multi-level run as ``<level>/loss``.
        path (str): Where to write the picture.
    """
    figure = Figure(figsize=(4.2 * len(LEVELS), 3.2), layout='constrained')
    for axes, level in zip(figure.subplots(1, len(LEVELS)), LEVELS):
        keys = (f'{level}/loss', 'loss') if level == LEVELS[0] else (f'{level}/loss',)
        for name, records in runs.items():
            points = [(record['step'], record[key]) for record in records for key in keys if key in record]
            if points:
                axes.plot(*zip(*points), label=name)
        axes.set(title=level, xlabel='pretrain step', ylabel='loss')
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
