# Cascade Mask R-CNN on the same backbone, pyramid and heads as mask-rcnn_vitdet.py.
_base_ = 'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py'

norm_cfg = dict(type='mmpretrain.LN2d', eps=1e-6)

model = dict(
    # Test images are padded here, to the square that the positions are for: a `Pad` in the pipeline would let boxes lie in
    # the padding.
    data_preprocessor=dict(pad_size_divisor=1024),
    backbone=dict(
        _delete_=True,
        type='mmmlo.WindowedViT',
        arch='base',
        img_size=1024,
        patch_size=16,
        window_size=14,
        global_blocks=4,
        drop_path_rate=0.1,
        final_norm=False),
    neck=dict(_delete_=True, type='mmmlo.SimpleFPN', in_channels=768, out_channels=256, num_outs=5),
    rpn_head=dict(type='mmmlo.AutocastRPNHead', num_convs=2),
    roi_head=dict(
        bbox_head=[
            dict(
                type='Shared4Conv1FCBBoxHead',
                in_channels=256,
                conv_out_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=80,
                norm_cfg=norm_cfg,
                bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0., 0., 0., 0.], target_stds=stds),
                reg_class_agnostic=True,
                loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0))
            for stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
        ],
        mask_head=dict(norm_cfg=norm_cfg)))
