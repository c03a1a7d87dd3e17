import json

from matplotlib import image

from mmmlo.visualization import plot_losses, read_scalars


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
