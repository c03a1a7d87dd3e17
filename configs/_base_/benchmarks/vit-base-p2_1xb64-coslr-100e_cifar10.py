# MLO-MAE's released fine-tuning of ViT-B/2 on CIFAR-10.
_base_ = [
    './models/vit-base-p2_32px.py',
    './datasets/cifar10.py',
    './schedules/adamw-coslr-100e.py',
    './runtime.py',
]

train_dataloader = dict(batch_size=64)
optim_wrapper = dict(type='mmmlo.BFloat16OptimWrapper', optimizer=dict(betas=(0.9, 0.95)))
auto_scale_lr = dict(base_batch_size=64, enable=False)
