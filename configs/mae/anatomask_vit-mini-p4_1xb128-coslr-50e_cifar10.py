# MAE that masks, more and more of them, the patches that a moving average of it reconstructs worst (AnatoMask), on CIFAR-10.
# Run:  python tools/train.py configs/mae/anatomask_vit-mini-p4_1xb128-coslr-50e_cifar10.py
_base_ = './mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

model = dict(masker=dict(type='mmmlo.TeacherLossMasker'), weighting=dict(type='mmmlo.UniformWeights'), guided_share=0.5)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmmlo.TeacherHook'),
    dict(type='mmmlo.ScheduleHook', schedules={'guided_share': dict(start=0., end=0.5)}),
]
