# MAE, 96 dims x 4 blocks, on scikit-learn's digits: the quickstart's baseline.
# Cost: 320 steps, under a minute on two CPU cores. Needs no download.
# Run:  python tools/train.py configs/mae/mae_vit-nano-p4_1xb128-coslr-40e_digits.py
_base_ = [
    '../_base_/models/mae_vit-nano-p4_32px.py',
    '../_base_/datasets/digits.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=4, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=36, by_epoch=True, begin=4, end=40, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=40, val_interval=10)
default_hooks = dict(logger=dict(interval=8), checkpoint=dict(interval=40))
custom_hooks = [dict(type='mmmlo.MaskStatisticsHook', interval=8)]
auto_scale_lr = dict(base_batch_size=128, enable=False)
