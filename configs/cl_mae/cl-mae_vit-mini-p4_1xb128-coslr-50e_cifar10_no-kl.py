# Ablation: CL-MAE without the loss that keeps the share of masked patches: the mean score is free.
# Cost: 15,600 pretrain and 15,600 masking steps.
# Run:  python tools/train.py configs/cl_mae/cl-mae_vit-mini-p4_1xb128-coslr-50e_cifar10_no-kl.py
_base_ = './cl-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

model = dict(ratio=dict(loss_weight=0.))
