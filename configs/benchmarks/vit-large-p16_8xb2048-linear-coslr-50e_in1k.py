# MAE's linear probe of ViT-L/16 on ImageNet-1K.
# Cost: 50 epochs of 1.28 M images at batch 16,384 on 8 GPUs, without a backward pass through the encoder.
# Run:  bash tools/dist_train.sh configs/benchmarks/vit-large-p16_8xb2048-linear-coslr-50e_in1k.py 8 --backbone CHECKPOINT
_base_ = './vit-base-p16_8xb2048-linear-coslr-90e_in1k.py'

model = dict(
    backbone=dict(arch='large', frozen_stages=24), neck=dict(input_features=1024), head=dict(in_channels=1024))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=40, by_epoch=True, begin=10, end=50, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=50, val_interval=50)
