# Ablation: MLO-MAE with 50 % of the patches masked, in place of 75 %.
# Cost: 15,600 pretrain, 7,800 finetune and 7,800 masking steps.
# Run:  python tools/train.py configs/mlo_mae/ablations/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10_mask-ratio-50.py
_base_ = '../mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

model = dict(mask_ratio=0.5)
