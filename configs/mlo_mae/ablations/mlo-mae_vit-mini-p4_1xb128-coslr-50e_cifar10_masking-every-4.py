# Ablation: MLO-MAE whose masker moves in every fourth cycle, in place of every one.
# Cost: 15,600 pretrain, 7,800 finetune and 1,950 masking steps.
# Run:  python tools/train.py configs/mlo_mae/ablations/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10_masking-every-4.py
_base_ = '../mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

optim_wrapper = dict(levels=dict(masking=dict(every=4)))
