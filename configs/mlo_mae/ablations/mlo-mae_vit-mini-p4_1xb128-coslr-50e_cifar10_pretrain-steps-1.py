# Ablation: MLO-MAE with one pretrain step a cycle, in place of two.
# Cost: 15,600 pretrain, 15,600 finetune and 15,600 masking steps.
# Run:  python tools/train.py configs/mlo_mae/ablations/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10_pretrain-steps-1.py
_base_ = '../mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

optim_wrapper = dict(levels=dict(pretrain=dict(steps=1)))
