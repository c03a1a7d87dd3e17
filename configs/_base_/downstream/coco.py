# Feedback by detection of COCO, at 320 px, by FCOS (Tian et al., 2019) on the map of stride 16: `coco_task` is for
# model.downstream, the two loaders for the levels finetune and masking. D_tr is 80 % of train2017, D_val the rest.
coco_task = dict(
    type='mmmlo.DetectionTask',
    head=dict(
        type='mmdet.FCOSHead',
        num_classes=80,
        in_channels=192,
        feat_channels=96,
        stacked_convs=2,
        strides=[16],
        regress_ranges=((-1, 1e8), ),
        loss_cls=dict(type='mmmlo.PlainFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25)))

coco_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='mmdet.Resize', scale=(320, 320), keep_ratio=True),
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
