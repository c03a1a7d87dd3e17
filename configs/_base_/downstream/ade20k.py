# Feedback by segmentation of ADE20K, in crops of 224 px: `ade20k_task` is for model.downstream, the two loaders for the
# levels finetune and masking. D_tr is 80 % of the training split, D_val the rest.
ade20k_task = dict(
    type='mmmlo.SegmentationTask', decode_head=dict(type='mmmlo.LinearSegHead', in_channels=768, num_classes=150))

ade20k_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.LoadAnnotations', reduce_zero_label=True),
    dict(type='mmseg.RandomResize', scale=(896, 224), ratio_range=(1.0, 2.0), keep_ratio=True),
    dict(type='mmseg.RandomCrop', crop_size=(224, 224), cat_max_ratio=0.75),
    dict(type='mmseg.RandomFlip', prob=0.5),
    dict(type='mmseg.PackSegInputs'),
]
ade20k_train = dict(
    batch_size=32,
    collate_fn=dict(type='pseudo_collate'),
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=(224, 224)),
    dataset=dict(
        type='mmmlo.SplitDataset',
        part='train',
        dataset=dict(
            type='mmseg.ADE20KDataset',
            data_root='data/ade/ADEChallengeData2016',
            data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
            pipeline=ade20k_pipeline)))
ade20k_val = dict(ade20k_train, dataset=dict(ade20k_train['dataset'], part='val'))
