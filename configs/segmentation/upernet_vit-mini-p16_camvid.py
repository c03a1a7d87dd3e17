# Segments CamVid with UPerNet on a mini ViT, 192 dims x 6 blocks, patches of 16 pixels.
# Cost: 400 iterations of 4 crops of 256 x 320; 5.5 minutes on one CPU core.
# Run:  python tools/train.py configs/segmentation/upernet_vit-mini-p16_camvid.py --backbone CHECKPOINT
_base_ = ['mmseg::_base_/models/upernet_mae.py', '../_base_/segmentation/camvid.py']

norm_cfg = dict(type='BN', requires_grad=True)

# Levels of strides 8 to 64 in place of 4 to 32, which would cost twice as much. Test images are 360 pixels high: 23 rows of
# patches, the last one padded.
model = dict(
    data_preprocessor=dict(size=(256, 320), test_cfg=dict(size_divisor=16)),
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768),
        img_size=160,
        patch_size=16,
        drop_path_rate=0.1,
        out_type='featmap',
        out_indices=[1, 2, 3, 5],
        final_norm=False),
    neck=dict(embed_dim=192, rescales=[2, 1, 0.5, 0.25], norm_cfg=norm_cfg),
    decode_head=dict(in_channels=[192, 192, 192, 192], channels=96, num_classes=11, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=192, in_index=1, channels=96, num_classes=11, norm_cfg=norm_cfg),
    test_cfg=dict(mode='whole'))

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='mmmlo.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.75,
        flat_decay_mult=0.,
        custom_keys=dict(cls_token=dict(decay_mult=0.), pos_embed=dict(decay_mult=0.))))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=50, end=400),
]
train_cfg = dict(max_iters=400, val_interval=200)
default_hooks = dict(checkpoint=dict(interval=200))
