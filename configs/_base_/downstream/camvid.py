# Feedback by segmentation of CamVid, in crops of 160 px: `camvid_task` is for model.downstream, the two loaders for the
# levels finetune and masking. D_tr is the first 80 scenes of the training split, D_val the 20 after them: neighbours in a
# film would tell D_val's labels.
camvid_task = dict(
    type='mmmlo.SegmentationTask', decode_head=dict(type='mmmlo.LinearSegHead', in_channels=192, num_classes=11))

camvid_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='mmseg.LoadAnnotations'),
    dict(type='mmseg.RandomResize', scale=(480, 360), ratio_range=(0.5, 1.25), keep_ratio=True),
    dict(type='mmseg.RandomCrop', crop_size=(160, 160), cat_max_ratio=0.75),
    dict(type='mmseg.RandomFlip', prob=0.5),
    dict(type='mmseg.PackSegInputs'),
]
camvid_train = dict(
    batch_size=16,
    collate_fn=dict(type='pseudo_collate'),
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=(160, 160)),
    dataset=dict(
        type='mmmlo.CamVidDataset',
        data_root='data/camvid',
        data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
        indices=list(range(80)),
        pipeline=camvid_pipeline))
camvid_val = dict(camvid_train, dataset=dict(camvid_train['dataset'], indices=list(range(80, 100))))
