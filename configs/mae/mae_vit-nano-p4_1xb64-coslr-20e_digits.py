# MAE, 96 dims x 4 blocks, on scikit-learn's digits.
# Cost: 340 steps, under a minute on two CPU cores. Needs no download.
# Run:  python tools/train.py configs/mae/mae_vit-nano-p4_1xb64-coslr-20e_digits.py
_base_ = [
    '../_base_/models/mae_vit-nano-p4_32px.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/mae_1xb128-coslr-50e.py',
    '../_base_/default_runtime.py',
]

# A digit's patches differ in brightness more than in texture, which normalized pixels would take away.
model = dict(head=dict(norm_pix=False))
train_dataloader = dict(batch_size=64)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=18, by_epoch=True, begin=2, end=20, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=20)
default_hooks = dict(logger=dict(interval=17), checkpoint=dict(interval=20))
custom_hooks = [dict(type='mmmlo.MaskStatisticsHook', interval=17)]
auto_scale_lr = dict(base_batch_size=64)
