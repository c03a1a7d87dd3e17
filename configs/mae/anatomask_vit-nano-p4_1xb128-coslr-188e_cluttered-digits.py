# MAE that masks, more and more of them, the patches that a moving average of it reconstructs worst (AnatoMask), on cluttered
# digits.
# Run:  python tools/train.py configs/mae/anatomask_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py
_base_ = './mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py'

model = dict(masker=dict(type='mmmlo.TeacherLossMasker'), weighting=dict(type='mmmlo.UniformWeights'), guided_share=0.5)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmmlo.TeacherHook'),
    dict(type='mmmlo.ScheduleHook', schedules={'guided_share': dict(start=0., end=0.5)}),
]
