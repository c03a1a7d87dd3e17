# MLO-MAE's released fine-tuning on CIFAR: a learning rate of 1e-4 at each of its batch sizes, a cosine that moves once an
# epoch, no warm-up, weight decay on all parameters.
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=5e-5))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=100, by_epoch=True, begin=0, end=100)]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=100)
