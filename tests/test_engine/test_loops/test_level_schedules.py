import pytest

from mmmlo.engine.loops.level_schedules import level_schedules

TOTAL = dict(pretrain=40, masking=20)


def test_epochs_become_each_level_s_steps():
    schedules = [
        dict(type='LinearLR', by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
        dict(type='CosineAnnealingLR', by_epoch=True, begin=2, convert_to_iter_based=True),
        dict(type='MultiStepLR', milestones=[5, 8], convert_to_iter_based=True),
        dict(type='CosineRestartLR', periods=[4, 6], restart_weights=[1, 1], convert_to_iter_based=True),
    ]
    resolved = level_schedules(schedules, TOTAL, max_epochs=10)
    assert resolved['masking'] == [
        dict(type='LinearLR', by_epoch=False, begin=0, end=4),
        dict(type='CosineAnnealingLR', by_epoch=False, begin=4, end=20, T_max=16),
        dict(type='MultiStepLR', by_epoch=False, begin=0, end=20, milestones=[10, 16]),
        dict(type='CosineRestartLR', by_epoch=False, begin=0, end=20, periods=[8, 12], restart_weights=[1, 1]),
    ]
    assert resolved['pretrain'][1] == dict(type='CosineAnnealingLR', by_epoch=False, begin=8, end=40, T_max=32)
    assert schedules[1] == dict(type='CosineAnnealingLR', by_epoch=True, begin=2, convert_to_iter_based=True)


def test_epochs_stay_epochs_unless_converted():
    resolved = level_schedules(dict(type='StepLR', step_size=3), TOTAL, max_epochs=10)
    assert resolved['masking'] == [dict(type='StepLR', step_size=3, begin=0, end=10)]


def test_levels_can_have_schedules_of_their_own():
    resolved = level_schedules(dict(masking=dict(type='ConstantLR', by_epoch=False)), TOTAL, max_epochs=10)
    assert resolved == dict(pretrain=[], masking=[dict(type='ConstantLR', by_epoch=False, begin=0, end=20)])
    assert level_schedules(None, TOTAL, max_epochs=10) is None
    with pytest.raises(ValueError, match="param_scheduler has 'decode'"):
        level_schedules(dict(decode=[]), TOTAL, max_epochs=10)
