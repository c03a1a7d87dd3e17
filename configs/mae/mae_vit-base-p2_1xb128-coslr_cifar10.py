# MAE, ViT-B with 2 x 2 pixel patches, on CIFAR-10: the baseline of MLO-MAE's presets, with as many pretrain steps.
# Cost: 125,112 steps of 128 images (401 epochs of 40,000 images, the nearest to 125,200); needs a GPU.
# Run:  python tools/train.py configs/mae/mae_vit-base-p2_1xb128-coslr_cifar10.py --amp
_base_ = [
    '../_base_/models/mae_vit-base-p2_32px.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='mmmlo.GroupedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=401, by_epoch=True, begin=0, end=401, convert_to_iter_based=True)]
train_cfg = dict(type='mmmlo.ResumableTrainLoop', max_epochs=401, val_interval=20)
auto_scale_lr = dict(base_batch_size=128, enable=False)
