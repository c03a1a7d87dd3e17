# Ablation: MLO-MAE with four pretrain steps a cycle, in place of two.
# Cost: 15,600 pretrain, 3,900 finetune and 3,900 masking steps.
# Run:  python tools/train.py configs/mlo_mae/ablations/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10_pretrain-steps-4.py
_base_ = '../mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

optim_wrapper = dict(levels=dict(pretrain=dict(steps=4)))
