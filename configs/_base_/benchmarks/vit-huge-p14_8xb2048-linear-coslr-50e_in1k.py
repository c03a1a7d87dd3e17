# MAE's linear probe of ViT-H/14 on ImageNet-1K.
_base_ = './vit-large-p16_8xb2048-linear-coslr-50e_in1k.py'

model = dict(
    backbone=dict(arch='huge', patch_size=14, frozen_stages=32),
    neck=dict(input_features=1280),
    head=dict(in_channels=1280))
