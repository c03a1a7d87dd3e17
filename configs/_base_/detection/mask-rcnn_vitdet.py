# Mask R-CNN on a windowed ViT-B/16, as ViTDet (Li et al., 2022) has it: a pyramid from the last feature map, two
# convolutions in the RPN, four and a linear layer for boxes, layer norms in both heads.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

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
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg)))
