import json

import pytest
from matplotlib import image

from mmmlo.engine import curriculum_factor
from mmmlo.visualization import plot_curriculum, plot_losses, read_scalars


def test_scalars_of_training_are_read(tmp_path):
    path = tmp_path / 'scalars.json'
    records = [{'step': 1, 'pretrain/loss': 0.5}, {'step': 1, 'knn/top1': 80.0}, {'step': 2, 'loss': 0.25}]
    path.write_text('\n'.join(json.dumps(record) for record in records) + '\n')
    assert read_scalars(str(path)) == [records[0], records[2]]


def test_losses_are_drawn_level_by_level(tmp_path):
    runs = dict(
        mae=[{'step': i, 'loss': 1 / (i + 1)} for i in range(5)],
        mlo=[{'step': i, 'pretrain/loss': 1.0, 'masking/loss': 2.0} for i in range(5)],
    )
    plot_losses(runs, str(tmp_path / 'all.png'))
    plot_losses({}, str(tmp_path / 'none.png'))
    drawn, empty = (image.imread(tmp_path / name) for name in ('all.png', 'none.png'))
    assert drawn.shape[1] > 2.5 * drawn.shape[0]
    assert (drawn != empty[: drawn.shape[0], : drawn.shape[1]]).any()


@pytest.fixture
def draw(tmp_path):
    """``draw(source)``: the picture; a list of records is written to a file first."""

    def run(source, name):
        if isinstance(source[0], dict):
            log = tmp_path / 'scalars.json'
            log.write_text('\n'.join(json.dumps(record) for record in source) + '\n')
            source = str(log)
        plot_curriculum(source, str(tmp_path / f'{name}.png'))
        return image.imread(tmp_path / f'{name}.png')

    return run


def records(**terms):
    """A log of ten iterations; the masking level logs in every second."""
    return [
        {'step': i + 1, 'pretrain/loss': 1.0, 'curriculum_factor': curriculum_factor(i, 10)}
        | ({f'masking/{name}': value * i for name, value in terms.items()} if i % 2 else {})
        for i in range(10)
    ]


def test_factors_of_a_schedule(draw):
    pictures = [draw([curriculum_factor(i, 10, schedule) for i in range(10)], schedule) for schedule in ('linear', 'step')]
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()


def test_a_run_with_its_reconstruction_term_beside(draw):
    alone = draw(records(), 'alone')
    beside = draw(records(reconstruction=0.5), 'beside')
    both = draw(records(reconstruction=0.5, loss_reconstruction=-0.5), 'both')
    assert alone.shape[0] == beside.shape[0] and beside.shape[1] == 2 * alone.shape[1]
    assert both.shape == beside.shape and (both != beside).any()


def test_a_run_without_a_curriculum_is_refused(draw):
    with pytest.raises(ValueError, match=r'scalars\.json has no curriculum_factor; the run needs a mmmlo\.CurriculumHook'):
        draw([{'step': 1, 'loss': 0.5}], 'none')
