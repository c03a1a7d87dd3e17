import pytest

from mmmlo.engine import Cadence

STEPS = dict(pretrain=2, finetune=1, masking=3)


def test_upper_levels_run_in_the_iteration_that_completes_the_lowest_one():
    cadence = Cadence(STEPS, dict.fromkeys(STEPS, 1))
    assert [cadence.due(i) for i in range(4)] == [
        dict(pretrain=1),
        dict(pretrain=1, finetune=1, masking=3),
        dict(pretrain=1),
        dict(pretrain=1, finetune=1, masking=3),
    ]
    assert cadence.total_steps(7) == dict(pretrain=7, finetune=3, masking=9)


def test_accumulation_multiplies_batches_and_not_steps():
    cadence = Cadence(STEPS, dict(pretrain=2, finetune=4, masking=1))
    due = [cadence.due(i) for i in range(8)]
    assert [len(levels) for levels in due] == [1, 1, 1, 3, 1, 1, 1, 3]
    assert due[3] == dict(pretrain=1, finetune=4, masking=3)
    assert cadence.total_steps(8) == dict(pretrain=4, finetune=2, masking=6)


@pytest.mark.parametrize('steps', [0, -1, 1.5, '2'])
def test_steps_must_be_positive_integers(steps):
    with pytest.raises(ValueError, match=r'levels.finetune.steps must be a positive integer'):
        Cadence(dict(pretrain=2, finetune=steps), dict(pretrain=1, finetune=1))


def test_start_and_every_in_cycles():
    ones = dict.fromkeys(STEPS, 1)
    cadence = Cadence(STEPS, ones, start=dict(finetune=1, masking=2), every=dict(masking=2))
    due = [set(cadence.due(i)) - {'pretrain'} for i in range(1, 16, 2)]  # the last iteration of each cycle
    both = {'finetune', 'masking'}
    assert due == [set(), {'finetune'}, {'finetune'}, both, {'finetune'}, both, {'finetune'}, both]
    for iterations in range(18):
        steps = dict.fromkeys(STEPS, 0)
        for i in range(iterations):
            for level, count in cadence.due(i).items():
                steps[level] += count
        assert cadence.total_steps(iterations) == steps
    assert cadence.runs_with('finetune', 'masking')
    assert not cadence.runs_with('masking', 'finetune')


@pytest.mark.parametrize(
    ('lower', 'upper', 'together'),
    [
        ((0, 2), (0, 2), True),
        ((0, 2), (1, 2), False),
        ((0, 2), (0, 3), False),
        ((3, 1), (2, 1), False),
        ((1, 2), (1, 4), True),
    ],
)
def test_runs_with(lower, upper, together):
    names = dict(start=dict(finetune=lower[0], masking=upper[0]), every=dict(finetune=lower[1], masking=upper[1]))
    cadence = Cadence(dict.fromkeys(STEPS, 1), dict.fromkeys(STEPS, 1), **names)
    due = [set(cadence.due(i)) for i in range(60)]
    assert all('finetune' in levels for levels in due if 'masking' in levels) == together
    assert cadence.runs_with('finetune', 'masking') == together
    assert cadence.runs_with('pretrain', 'masking')


@pytest.mark.parametrize(
    ('kwargs', 'words'),
    [
        (dict(start=dict(finetune=-1)), r'levels.finetune.start must be an integer from 0'),
        (dict(every=dict(finetune=0)), r'levels.finetune.every must be a positive integer'),
        (dict(start=dict(pretrain=1)), r'levels.pretrain.start is 1, but the lowest level runs in every cycle'),
        (dict(every=dict(pretrain=2)), r'levels.pretrain.every is 2, but the lowest level runs in every cycle'),
    ],
)
def test_wrong_start_and_every(kwargs, words):
    with pytest.raises(ValueError, match=words):
        Cadence(STEPS, dict.fromkeys(STEPS, 1), **kwargs)
