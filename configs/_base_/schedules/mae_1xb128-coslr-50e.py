# 50 epochs at batch 128 for small images.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='mmmlo.GroupedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=48, by_epoch=True, begin=2, end=50, convert_to_iter_based=True),
]
train_cfg = dict(type='mmmlo.ResumableTrainLoop', max_epochs=50, val_interval=5)
auto_scale_lr = dict(base_batch_size=128, enable=False)
