# Mask R-CNN on a mini ViT, 192 dims x 6 blocks, at 320 px with narrow heads: small enough to overfit a few images on a CPU.
# Cost: 800 iterations of 2 images of 320 x 320.
# Run:  python tools/train.py configs/detection/mask-rcnn_vit-mini-p16_1xb2-320px-800_coco.py --backbone CHECKPOINT
_base_ = [
    '../_base_/detection/mask-rcnn_vitdet.py',
    '../_base_/detection/coco_lsj_1024px.py',
    '../_base_/detection/adamw-184k.py',
    '../_base_/detection/runtime.py',
]

image_size = (320, 320)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='Pad', size=image_size, pad_val=dict(img=(114, 114, 114))),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

model = dict(
    data_preprocessor=dict(pad_size_divisor=320),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768),
        img_size=320,
        window_size=10,
        global_blocks=2,
        drop_path_rate=0.),
    neck=dict(in_channels=192, out_channels=96),
    rpn_head=dict(num_convs=1, in_channels=96, feat_channels=96),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=96),
        bbox_head=dict(in_channels=96, conv_out_channels=96, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=96),
        mask_head=dict(num_convs=2, in_channels=96, conv_out_channels=96)),
    train_cfg=dict(rcnn=dict(sampler=dict(num=64))))

train_dataloader = dict(batch_size=2, num_workers=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=2, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=0.9),
    clip_grad=dict(max_norm=1.0, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=800, T_max=750),
]
train_cfg = dict(max_iters=800, val_interval=800)
default_hooks = dict(checkpoint=dict(interval=400))
auto_scale_lr = dict(base_batch_size=2)
