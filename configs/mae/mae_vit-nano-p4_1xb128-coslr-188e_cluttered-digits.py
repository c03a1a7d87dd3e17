# MAE, 96 dims x 4 blocks, on cluttered digits: the baseline where patches differ in worth.
# Cost: 1,504 steps, about four minutes on two CPU cores. Needs no download.
# Run:  python tools/train.py configs/mae/mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py
_base_ = [
    '../_base_/models/mae_vit-nano-p4_32px.py',
    '../_base_/datasets/cluttered_digits.py',
    '../_base_/schedules/mae_1xb128-coslr-50e.py',
    '../_base_/default_runtime.py',
]

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=12, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=176, by_epoch=True, begin=12, end=188, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=188, val_interval=47)
default_hooks = dict(logger=dict(interval=8), checkpoint=dict(interval=188))
custom_hooks = [
    dict(type='mmmlo.MaskStatisticsHook', interval=80),
    dict(type='mmmlo.WorthStatisticsHook', interval=80, dataset=_base_.worth_split),
]
