# Segments ADE20K with a linear layer on the frozen ViT-B/16: a quick comparison of encoders.
# Cost: 40,000 iterations of 16 crops of 512 x 512 on 8 GPUs, without a backward pass through the encoder.
# Run:  bash tools/dist_train.sh configs/segmentation/linear_vit-base-p16_8xb2-amp-40k_ade20k-512x512.py 8 \
#           --backbone CHECKPOINT
_base_ = ['../_base_/segmentation/linear.py', '../_base_/segmentation/ade20k.py']

crop_size = (512, 512)

model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(arch='base', img_size=crop_size, frozen_stages=12),
    decode_head=dict(in_channels=768, num_classes=150, norm_cfg=dict(type='SyncBN')),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(341, 341)))

# After DINOv2's linear evaluation (Oquab et al., 2024), whose config was not at hand.
optim_wrapper = dict(
    type='mmmlo.BFloat16OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=40000),
]
train_cfg = dict(max_iters=40000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000))
