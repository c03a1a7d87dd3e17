# ViTDet's schedule (Li et al., 2022, appendix A.2): 100 epochs at batches of 64, and its AdamW. Norms and position
# embeddings have no weight decay; biases have.
optim_wrapper = dict(
    type='mmmlo.BFloat16OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
    constructor='mmmlo.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.7, norm_decay_mult=0., custom_keys=dict(pos_embed=dict(decay_mult=0.))))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=250),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=184375, milestones=[163889, 177546], gamma=0.1),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=184375, val_interval=5000)
