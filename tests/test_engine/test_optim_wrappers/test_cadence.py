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
