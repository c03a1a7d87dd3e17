# MAE whose loss counts the patches more that a moving average of it reconstructs worst, under random masks, on cluttered
# digits: hardness as a weight, without labels.
# Run:  python tools/train.py configs/mae/hardness-mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py
_base_ = './mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py'

model = dict(
    masker=dict(type='mmmlo.TeacherLossMasker', passes=2), weighting=dict(type='mmmlo.TopWeights'), guided_share=0.)
custom_hooks = [*_base_.custom_hooks, dict(type='mmmlo.TeacherHook')]
