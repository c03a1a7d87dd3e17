# Ablation: CL-MAE without the loss that keeps the masks of different images apart.
# Cost: 15,600 pretrain and 15,600 masking steps.
# Run:  python tools/train.py configs/cl_mae/cl-mae_vit-mini-p4_1xb128-coslr-50e_cifar10_no-diversity.py
_base_ = './cl-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

model = dict(diversity=dict(loss_weight=0.))
