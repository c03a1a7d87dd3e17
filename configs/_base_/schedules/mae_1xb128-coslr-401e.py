# As many steps at batch 128 as MLO-MAE's presets for CIFAR have, with their learning rate.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='mmmlo.GroupedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=401, by_epoch=True, begin=0, end=401, convert_to_iter_based=True)]
train_cfg = dict(type='mmmlo.ResumableTrainLoop', max_epochs=401, val_interval=20)
auto_scale_lr = dict(base_batch_size=128, enable=False)
