# CL-MAE, 192 dims x 6 blocks, on CIFAR-10. No labels enter; the images are those of the MAE config of the same name.
# Cost: 15,600 pretrain and 15,600 masking steps.
# Run:  python tools/train.py configs/cl_mae/cl-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py
_base_ = [
    '../_base_/models/cl-mae_vit-mini-p4_32px.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/cl-mae_1xb128-coslr-50e.py',
    '../_base_/default_runtime.py',
]

custom_hooks = [dict(type='mmmlo.MaskStatisticsHook', interval=50), dict(type='mmmlo.CurriculumHook')]
