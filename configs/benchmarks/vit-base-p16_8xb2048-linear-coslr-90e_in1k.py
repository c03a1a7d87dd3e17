# MAE's linear probe of ViT-B/16 on ImageNet-1K (He et al., 2022, table 10; FINETUNE.md of its code).
# Cost: 90 epochs of 1.28 M images at batch 16,384 on 8 GPUs, without a backward pass through the encoder.
# Run:  bash tools/dist_train.sh configs/benchmarks/vit-base-p16_8xb2048-linear-coslr-90e_in1k.py 8 --backbone CHECKPOINT
_base_ = ['../_base_/benchmarks/datasets/imagenet.py', '../_base_/benchmarks/runtime.py']

# The encoder has no checkpoint here, so it is random; `--backbone CHECKPOINT` sets its init_cfg. All of it is frozen, and it
# has neither dropout nor batch norm: its features are those of evaluation while the head trains.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        num_classes=1000, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(
        type='VisionTransformer', arch='base', img_size=224, patch_size=16, frozen_stages=12, out_type='cls_token'),
    neck=dict(type='ClsBatchNormNeck', input_features=768),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=768,
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.01)))

train_pipeline = [
    dict(type='mmmlo.LoadImage'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=2048, dataset=dict(pipeline=train_pipeline))

# lr is 0.1 per 256 images. As in MAE's LARS, a bias has no rate of its own.
optim_wrapper = dict(
    type='mmmlo.BFloat16OptimWrapper',
    optimizer=dict(type='LARS', lr=0.1 * 16384 / 256, momentum=0.9, weight_decay=0.),
    paramwise_cfg=dict(custom_keys=dict(bias=dict(lars_exclude=True))))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=80, by_epoch=True, begin=10, end=90, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=90, val_interval=90)
# An epoch has 78 iterations.
default_hooks = dict(logger=dict(interval=10))
# Each GPU has statistics of its own images; the model that is evaluated and saved has their mean.
custom_hooks = [dict(type='SyncBuffersHook')]
auto_scale_lr = dict(base_batch_size=16384, enable=False)
