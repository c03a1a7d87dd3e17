# The three levels of MLO-MAE for small images: 50 epochs of the pretrain level at batch 128, cycles of 2 : 1 : 1.
optim_wrapper = dict(
    constructor='mmmlo.MultiLevelOptimWrapperConstructor',
    levels=dict(
        pretrain=dict(
            optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
            paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.),
            steps=2),
        finetune=dict(optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True)),
        masking=dict(
            # At the released 1e-3 the scores saturate within a few updates.
            optimizer=dict(type='AdamW', lr=5e-5, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
            paths=['pretrain', 'finetune>pretrain'],
            hypergradient=dict(type='mmmlo.ForwardMode'))))

# For every level, each counted in its own steps.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=2, end=50, convert_to_iter_based=True, T_max=48),
]
train_cfg = dict(type='mmmlo.MultiLevelTrainLoop', max_epochs=50, val_interval=5)
auto_scale_lr = dict(base_batch_size=128, enable=False)
