# The three levels of MLO-MAE with the released code's learning rates for CIFAR and its number of steps.
optim_wrapper = dict(
    constructor='mmmlo.MultiLevelOptimWrapperConstructor',
    levels=dict(
        pretrain=dict(
            optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
            paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.),
            steps=2),
        finetune=dict(optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True)),
        masking=dict(
            optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
            paths=['pretrain', 'finetune>pretrain'],
            hypergradient=dict(type='mmmlo.ForwardMode'))))
# Every level's cosine ends with its own last step.
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False)]
train_cfg = dict(type='mmmlo.MultiLevelTrainLoop', max_iters=125200, val_interval=20)
auto_scale_lr = dict(base_batch_size=128, enable=False)
