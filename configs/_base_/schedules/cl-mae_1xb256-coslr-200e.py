# CL-MAE's released values for ImageNet: 200 epochs, 40 of warm-up, lr 1e-3 per 256 images for both levels, the curriculum
# linear by epoch. On how many GPUs the paper's runs were is not known; --auto-scale-lr scales from 256 images.
optimizer = dict(
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.))
optim_wrapper = dict(
    constructor='mmmlo.MultiLevelOptimWrapperConstructor', levels=dict(pretrain=optimizer, masking=optimizer))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=40, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=40, end=200, convert_to_iter_based=True, T_max=160),
]
train_cfg = dict(type='mmmlo.MultiLevelTrainLoop', max_epochs=200, val_interval=20, dataloaders=dict(masking='pretrain'))
auto_scale_lr = dict(base_batch_size=256, enable=False)
