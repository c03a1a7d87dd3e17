# 192 dims x 6 blocks, 64 patches of 4 x 4 pixels, decoder 96 x 2: for 32 px images on a laptop.
_base_ = './mae_vit-nano-p4_32px.py'

model = dict(
    backbone=dict(arch=dict(embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768)),
    neck=dict(embed_dim=192, decoder_embed_dim=96, decoder_num_heads=3))
