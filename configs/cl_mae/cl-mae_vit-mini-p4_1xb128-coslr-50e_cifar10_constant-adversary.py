# Ablation: CL-MAE with a masker that works against the autoencoder throughout.
# Cost: 15,600 pretrain and 15,600 masking steps.
# Run:  python tools/train.py configs/cl_mae/cl-mae_vit-mini-p4_1xb128-coslr-50e_cifar10_constant-adversary.py
_base_ = './cl-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

custom_hooks = [
    dict(type='mmmlo.MaskStatisticsHook', interval=50),
    dict(type='mmmlo.CurriculumHook', schedule='constant', partner=-1.),
]
