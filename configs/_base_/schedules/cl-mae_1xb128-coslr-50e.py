# The two levels of CL-MAE for small images, on the same batches: 50 epochs at batch 128. Both levels have the same settings,
# as in the released code, where one optimizer moves everything.
optimizer = dict(
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.))
optim_wrapper = dict(
    constructor='mmmlo.MultiLevelOptimWrapperConstructor', levels=dict(pretrain=optimizer, masking=optimizer))

# For both levels, each counted in its own steps.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=2, end=50, convert_to_iter_based=True, T_max=48),
]
train_cfg = dict(type='mmmlo.MultiLevelTrainLoop', max_epochs=50, val_interval=5, dataloaders=dict(masking='pretrain'))
auto_scale_lr = dict(base_batch_size=128, enable=False)
