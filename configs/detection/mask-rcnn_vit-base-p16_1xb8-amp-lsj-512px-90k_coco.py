# Detects and segments COCO's objects with Mask R-CNN on a pretrained ViT-B/16 at 512 px: a schedule of ours for one GPU.
# Cost: 90,000 iterations of 8 crops of 512 x 512, 6 epochs.
# Run:  python tools/train.py configs/detection/mask-rcnn_vit-base-p16_1xb8-amp-lsj-512px-90k_coco.py --backbone CHECKPOINT
_base_ = './mask-rcnn_vit-base-p16_8xb8-amp-lsj-184k_coco.py'

image_size = (512, 512)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    # Half of the jitter: with a few epochs the smallest images only cost time.
    dict(type='RandomResize', scale=image_size, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(
        type='RandomCrop',
        crop_type='absolute_range',
        crop_size=image_size,
        recompute_bbox=True,
        allow_negative_crop=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type='Pad', size=image_size, pad_val=dict(img=(114, 114, 114))),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

model = dict(data_preprocessor=dict(pad_size_divisor=512), backbone=dict(img_size=512))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=90000, milestones=[80000, 86667], gamma=0.1),
]
train_cfg = dict(max_iters=90000, val_interval=15000)
default_hooks = dict(checkpoint=dict(interval=15000))
auto_scale_lr = dict(base_batch_size=8)
