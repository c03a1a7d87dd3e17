# Linear probe of MLO-MAE's ViT-L/16 on ImageNet-1K, by MAE's protocol.
# Cost: 50 epochs of 1.28 M images at batch 16,384 on 8 GPUs, without a backward pass through the encoder.
# Run:  bash tools/dist_train.sh configs/mlo_mae/benchmarks/vit-large-p16_8xb2048-linear-coslr-50e_in1k.py 8 \
#           --backbone CHECKPOINT
_base_ = '../../_base_/benchmarks/vit-large-p16_8xb2048-linear-coslr-50e_in1k.py'

work_dir = 'work_dirs/mlo-mae_vit-large-p16_8xb2048-linear-coslr-50e_in1k'
