# MAE's recipe for ImageNet (He et al., 2022, appendix A.1): lr 1.5e-4 per 256 images, 40 epochs of warm-up.
optim_wrapper = dict(
    type='mmmlo.BFloat16OptimWrapper',
    constructor='mmmlo.GroupedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1.5e-4 * 4096 / 256, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        custom_keys=dict(cls_token=dict(decay_mult=0.), mask_token=dict(decay_mult=0.))))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=40, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=760, by_epoch=True, begin=40, end=800, convert_to_iter_based=True),
]
train_cfg = dict(type='mmmlo.ResumableTrainLoop', max_epochs=800, val_interval=50)
auto_scale_lr = dict(base_batch_size=4096, enable=False)
