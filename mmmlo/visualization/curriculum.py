"""The curriculum of a CL-MAE run."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from mmmlo.utils.errors import SettingError

from .losses import read_scalars

# Keys of the log -> what they are. The first is there to be looked at, the second is what the masker minimizes.
TERMS = {
    'masking/reconstruction': 'reconstruction',
    'masking/loss_reconstruction': 'factor x reconstruction',
}


def plot_curriculum(source: Sequence[float] | str, path: str) -> None:
    """Draw the curriculum's factor and, of a run, the masking level's reconstruction term beside it.

    Args:
        source (Sequence[float] | str): A factor for each epoch or iteration, see
            :func:`mmmlo.engine.curriculum_factor`; or the path of a run's ``scalars.json``, see :func:`read_scalars`. What
            of the reconstruction term is not in the log is left out.
        path (str): Where to write the picture.

    Raises:
        ValueError: If the log has no factor.
    """
    if isinstance(source, str):
        records = read_scalars(source)
        lines = {key: [(r['step'], r[key]) for r in records if key in r] for key in ('curriculum_factor', *TERMS)}
        factors, unit = lines.pop('curriculum_factor'), 'iteration'
        if not factors:
            raise SettingError(f'{source} has no curriculum_factor; the run needs a mmmlo.CurriculumHook in custom_hooks')
        terms = {TERMS[key]: points for key, points in lines.items() if points}
    else:
        factors, unit, terms = list(enumerate(source)), 'epoch or iteration', {}
    columns = 1 + bool(terms)
    figure = Figure(figsize=(4.2 * columns, 3.2), layout='constrained')
    all_axes = figure.subplots(1, columns, squeeze=False)[0]
    all_axes[0].plot(*zip(*factors), drawstyle='steps-post')
    all_axes[0].set(title='curriculum', xlabel=unit, ylabel='factor')
    for name, points in terms.items():
        all_axes[1].plot(*zip(*points), label=name)
        all_axes[1].set(title='masking', xlabel=unit, ylabel='loss')
        all_axes[1].legend(frameon=False)
    for axes in all_axes:
        axes.axhline(0, color='0.6', linewidth=0.8)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
