# MAE's fine-tuning of ViT-H/14 on ImageNet-1K, at 224 px.
# Cost: 50 epochs of 1.28 M images at batch 1,024 on 8 GPUs.
# Run:  bash tools/dist_train.sh configs/benchmarks/vit-huge-p14_8xb128-coslr-50e_in1k.py 8 --backbone CHECKPOINT
_base_ = './vit-large-p16_8xb128-coslr-50e_in1k.py'

model = dict(backbone=dict(arch='huge', patch_size=14, drop_path_rate=0.3), head=dict(in_channels=1280))
