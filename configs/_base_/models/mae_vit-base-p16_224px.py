# ViT-B with patches of 16 x 16 pixels, 196 of them, and MAE's decoder.
_base_ = './mae_vit-base-p2_32px.py'

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(img_size=224, patch_size=16),
    neck=dict(grid=(14, 14), patch_size=16),
    head=dict(patch_size=16))
