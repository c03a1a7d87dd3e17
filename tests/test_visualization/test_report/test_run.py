import json

import pytest

from mmmlo.utils.errors import MissingFileError, SettingError
from mmmlo.visualization.report import Run, find_runs


def log(folder):
    return next(folder.glob('*/vis_data/scalars.json'))


def test_a_whole_run(work_dir):
    run = Run(str(work_dir()), 'a')
    assert run.missing == []
    assert run.curves['pretrain/loss'][0] == (17, 1.0) and len(run.curves['pretrain/loss']) == 20
    # A validation's line counts epochs; its own seconds are not the training's.
    assert run.curves['knn/top1'] == [(170, 61.0), (340, 62.0)] and run.metrics == ['knn/top1']
    assert run.seconds[-1] == (340, pytest.approx(85))
    assert run.epoch == 20 and run.config['model']['type'] == 'mmmlo.MLOMAE'
    assert sorted(run.pictures['masks']) == [0, 170, 340] == sorted(run.pictures['mask_frequency'])


def test_a_resumed_run_is_one(work_dir):
    folder = work_dir()
    again = folder / '20260102_040000' / 'vis_data'
    again.mkdir(parents=True)
    steps = {epoch: 17 * epoch for epoch in range(11, 15)}
    records = [dict(loss=9.0, time=0.25, epoch=epoch, iter=step, step=step) for epoch, step in steps.items()]
    (again / 'scalars.json').write_text('\n'.join(map(json.dumps, records)) + '\n')
    run = Run(str(folder), 'a')
    assert [step for step, _ in run.curves['pretrain/loss']] == [17 * epoch for epoch in range(1, 15)]
    assert run.curves['pretrain/loss'][10:] == [(17 * epoch, 9.0) for epoch in range(11, 15)]
    assert run.curves['knn/top1'] == [(170, 61.0)] and run.seconds[-1] == (238, pytest.approx(59.5))


def test_lines_that_are_torn_or_not_finite(work_dir):
    folder = work_dir()
    with log(folder).open('a') as file:
        for step in (357, 374):
            record = {'pretrain/loss': float('nan'), 'time': 0.25, 'epoch': 21, 'iter': step, 'step': step}
            file.write(json.dumps(record) + '\n')
        file.write('{"pretrain/loss": 0.1, "ti')
    run = Run(str(folder), 'a')
    assert len(run.curves['pretrain/loss']) == 20
    assert len(run.missing) == 2 and run.missing[0].endswith('cut off while they were written: 1.')
    assert 'pretrain/loss was not finite 2 times, first at iteration 357' in run.missing[1]


def test_what_is_not_there_is_said(work_dir, tmp_path):
    folder = work_dir()
    (folder / 'provenance.json').write_text('{"format": 2, "runs": []}')
    log(folder).write_text('{"loss": 1.0, "epoch": 1, "iter": 5, "step": 5}\n')
    (folder / 'evaluation').mkdir()
    (folder / 'evaluation' / 'results.json').write_text('{"format": 99}')
    run = Run(str(folder), 'a')
    assert ['it is of format 2' in run.missing[0], 'Nothing was measured of masks' in run.missing[1]] == [True, True]
    assert 'has format 99' in run.missing[2]
    empty = tmp_path / 'empty'
    empty.mkdir()
    assert [text.split(' (')[0] for text in Run(str(empty), 'b').missing] == [
        'There is no provenance.json', 'There is no line of a log'
    ]


def test_runs_are_found_in_folders_of_them(work_dir, tmp_path):
    for name in ('study/runs/a/seed_0', 'study/runs/b/seed_0'):
        work_dir(name, pictures=())
    assert [run.label for run in find_runs([str(tmp_path / 'study')])] == ['a/seed_0', 'b/seed_0']
    assert [run.label for run in find_runs([str(tmp_path / 'study/runs/a/seed_0')])] == ['seed_0']
    with pytest.raises(MissingFileError, match='no folder .*absent'):
        find_runs([str(tmp_path / 'absent')])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(SettingError, match='no work dir of a run'):
        find_runs([str(tmp_path / 'empty')])
    both = find_runs([str(tmp_path / 'empty'), str(tmp_path / 'study')])
    assert both[0].label == 'empty' and both[0].missing
