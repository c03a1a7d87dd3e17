# MLO-MAE's released fine-tuning of ViT-B/2 on CIFAR-10.
_base_ = [
    './models/vit-base-p2_32px.py',
    './datasets/cifar10.py',
    './schedules/adamw-coslr-100e.py',
    './runtime.py',
]

train_pipeline = [
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    # The mean of the training images, which is 0 when normalized.
    dict(type='Cutout', shape=16, pad_val=(125, 123, 114), prob=1.0),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(type='mmmlo.BFloat16OptimWrapper', optimizer=dict(betas=(0.9, 0.95)))
auto_scale_lr = dict(base_batch_size=64, enable=False)
