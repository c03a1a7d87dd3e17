# What makes AttMask, with hints, and AMT of a MAE: a config takes one of the two and the hooks. For the first tenth of the
# run masks are random: an encoder that has learned nothing attends to nothing.
attmask = dict(
    masker=dict(type='mmmlo.ClassAttentionMasker', show=0.1), weighting=dict(type='mmmlo.UniformWeights'))
amt = dict(
    masker=dict(type='mmmlo.ClassAttentionMasker'),
    weighting=dict(type='mmmlo.UniformWeights'),
    temperature=1.,
    mask_ratio=0.45,
    throw_ratio=0.4)
class_attention_hooks = [
    dict(type='mmmlo.TeacherHook'),
    dict(
        type='mmmlo.ScheduleHook', schedules=dict(guided_share=dict(start=0., end=1., schedule='constant', begin=0.1))),
]
