# Segments CamVid with a linear layer on a frozen mini ViT, 192 dims x 6 blocks, patches of 16 pixels.
# Cost: 600 iterations of 4 crops of 256 x 320; 2.5 minutes on one CPU core.
# Run:  python tools/train.py configs/segmentation/linear_vit-mini-p16_camvid.py --backbone CHECKPOINT
_base_ = ['../_base_/segmentation/linear.py', '../_base_/segmentation/camvid.py']

# Test images are 360 pixels high: 23 rows of patches, the last one padded.
model = dict(
    data_preprocessor=dict(size=(256, 320), test_cfg=dict(size_divisor=16)),
    backbone=dict(
        arch=dict(embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768), img_size=160, frozen_stages=6),
    decode_head=dict(in_channels=192, num_classes=11),
    test_cfg=dict(mode='whole'))

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2, betas=(0.9, 0.999), weight_decay=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=50, end=600),
]
train_cfg = dict(max_iters=600, val_interval=300)
default_hooks = dict(checkpoint=dict(interval=300))
