# MAE's fine-tuning of ViT-B/16 on ImageNet-1K (He et al., 2022, table 9; FINETUNE.md of its code).
# Cost: 100 epochs of 1.28 M images at batch 1,024 on 8 GPUs.
# Run:  bash tools/dist_train.sh configs/benchmarks/vit-base-p16_8xb128-coslr-100e_in1k.py 8 --backbone CHECKPOINT
_base_ = ['../_base_/benchmarks/datasets/imagenet.py', '../_base_/benchmarks/runtime.py']

# The encoder has no checkpoint here: so it is trained from scratch, the baseline "no pretraining". `--backbone CHECKPOINT`
# sets its init_cfg. The mean over the patches has a norm of its own, ln2; the checkpoint's ln1 is not used.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        num_classes=1000, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(
        type='VisionTransformer',
        arch='base',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
        out_type='avg_featmap',
        final_norm=False),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5)),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))

# Colors are those of BGR images.
train_pipeline = [
    dict(type='mmmlo.LoadImage'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic')),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=[103.53, 116.28, 123.675],
        fill_std=[57.375, 57.12, 58.395]),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))

# lr is 5e-4 per 256 images.
optim_wrapper = dict(
    type='mmmlo.BFloat16OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4 * 1024 / 256, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='mmmlo.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.65,
        flat_decay_mult=0.,
        custom_keys=dict(cls_token=dict(decay_mult=0.), pos_embed=dict(decay_mult=0.))))
# The last learning rate, MAE's 1e-6, is scaled layer by layer too.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=95, eta_min_ratio=1e-6 / 2e-3, by_epoch=True, begin=5, end=100,
         convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=100)
auto_scale_lr = dict(base_batch_size=1024, enable=False)
