# 192 dims x 6 blocks, 100 patches of 16 x 16 pixels, decoder 96 x 2: for photographs of 160 px without a GPU.
_base_ = './mae_vit-mini-p4_32px.py'

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(img_size=160, patch_size=16),
    neck=dict(grid=(10, 10), patch_size=16),
    head=dict(patch_size=16))
