# HPM on cluttered digits: MAE that masks, more and more of them, the patches of which a moving average of it predicts the
# largest loss, and learns to predict that.
# Run:  python tools/train.py configs/mae/hpm_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py
_base_ = './mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py'

model = dict(
    masker=dict(type='mmmlo.PredictedLossMasker'),
    weighting=dict(type='mmmlo.UniformWeights'),
    guided_share=0.5,
    extra_losses=dict(ranking=dict(type='mmmlo.RankingLoss', predictor=_base_.model.neck)))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmmlo.TeacherHook'),
    dict(
        type='mmmlo.ScheduleHook',
        schedules={
            'guided_share': dict(start=0., end=0.5),
            'masker.momentum': dict(start=1e-3, end=1e-4)
        }),
]
