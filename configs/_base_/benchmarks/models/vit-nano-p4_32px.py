# 96 dims x 4 blocks, 64 patches of 4 x 4 pixels, and MLO-MAE's head.
_base_ = './vit-mini-p4_32px.py'

model = dict(
    backbone=dict(arch=dict(embed_dims=96, num_layers=4, num_heads=3, feedforward_channels=384)),
    head=dict(in_channels=96))
