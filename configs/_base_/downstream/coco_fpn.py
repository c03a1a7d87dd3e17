# Feedback by detection of COCO, at 448 px, by FCOS (Tian et al., 2019) on ViTDet's pyramid: `coco_task` is for
# model.downstream, the two loaders for the levels finetune and masking. D_tr is 80 % of train2017, D_val the rest.
coco_task = dict(
    type='mmmlo.DetectionTask',
    neck=dict(type='mmmlo.SimpleFPN', in_channels=768, out_channels=256, num_outs=5),
    head=dict(
        type='mmdet.FCOSHead',
        num_classes=80,
        in_channels=256,
        feat_channels=256,
        stacked_convs=4,
        strides=[4, 8, 16, 32, 64],
        loss_cls=dict(type='mmmlo.PlainFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25)))

coco_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='mmdet.Resize', scale=(448, 448), keep_ratio=True),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet.PackDetInputs'),
]
coco_train = dict(
    batch_size=8,
    collate_fn=dict(type='pseudo_collate'),
    data_preprocessor=dict(
        type='mmdet.DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=16),
    dataset=dict(
        type='mmmlo.SplitDataset',
        part='train',
        dataset=dict(
            type='mmdet.CocoDataset',
            data_root='data/coco',
            ann_file='annotations/instances_train2017.json',
            data_prefix=dict(img='train2017'),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=coco_pipeline)))
coco_val = dict(coco_train, dataset=dict(coco_train['dataset'], part='val'))
