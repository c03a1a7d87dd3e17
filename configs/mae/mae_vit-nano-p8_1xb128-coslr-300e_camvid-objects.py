# MAE, 96 dims x 4 blocks, on small objects in street scenes: 64 patches of 8 x 8 pixels.
# Cost: 1,500 steps, about five minutes on two CPU cores. Needs CamVid in data/camvid (docs/data.md).
# Run:  python tools/train.py configs/mae/mae_vit-nano-p8_1xb128-coslr-300e_camvid-objects.py
_base_ = [
    '../_base_/models/mae_vit-nano-p4_32px.py',
    '../_base_/datasets/camvid_objects.py',
    '../_base_/schedules/mae_1xb128-coslr-50e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(img_size=64, patch_size=8),
    neck=dict(patch_size=8),
    head=dict(patch_size=8))

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=18, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=282, by_epoch=True, begin=18, end=300, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=300, val_interval=50)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=300))
custom_hooks = [
    dict(type='mmmlo.MaskStatisticsHook', interval=80),
    dict(type='mmmlo.WorthStatisticsHook', interval=80, dataset=_base_.worth_split),
]
