# What makes HPM of a MAE; a config takes both, and adds the predictor, which is like its decoder.
hpm = dict(
    masker=dict(type='mmmlo.PredictedLossMasker'),
    weighting=dict(type='mmmlo.UniformWeights'),
    guided_share=0.5)
hpm_hooks = [
    dict(type='mmmlo.TeacherHook'),
    dict(
        type='mmmlo.ScheduleHook',
        schedules={
            'guided_share': dict(start=0., end=0.5),
            'masker.momentum': dict(start=1e-3, end=1e-4)
        }),
]
