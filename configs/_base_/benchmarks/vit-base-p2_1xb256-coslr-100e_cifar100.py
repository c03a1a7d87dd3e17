# MLO-MAE's released fine-tuning of ViT-B/2 on CIFAR-100: no Cutout, and other betas than on CIFAR-10.
_base_ = [
    './models/vit-base-p2_32px.py',
    './datasets/cifar100.py',
    './schedules/adamw-coslr-100e.py',
    './runtime.py',
]

model = dict(head=dict(num_classes=100))
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(type='mmmlo.BFloat16OptimWrapper')
auto_scale_lr = dict(base_batch_size=256, enable=False)
