# 192 dims x 6 blocks, 64 patches of 4 x 4 pixels, and MLO-MAE's head.
_base_ = './vit-base-p2_32px.py'

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768), patch_size=4),
    head=dict(in_channels=192))
