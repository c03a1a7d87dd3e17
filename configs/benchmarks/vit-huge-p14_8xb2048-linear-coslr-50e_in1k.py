# MAE's linear probe of ViT-H/14 on ImageNet-1K.
# Cost: 50 epochs of 1.28 M images at batch 16,384 on 8 GPUs, without a backward pass through the encoder.
# Run:  bash tools/dist_train.sh configs/benchmarks/vit-huge-p14_8xb2048-linear-coslr-50e_in1k.py 8 --backbone CHECKPOINT
_base_ = './vit-large-p16_8xb2048-linear-coslr-50e_in1k.py'

model = dict(
    backbone=dict(arch='huge', patch_size=14, frozen_stages=32),
    neck=dict(input_features=1280),
    head=dict(in_channels=1280))
