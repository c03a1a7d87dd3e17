# MAE, 192 dims x 6 blocks, on CIFAR-100: the baseline of the MLO-MAE config of the same name, step for step.
# Cost: 15,600 steps on 40,000 images.
# Run:  python tools/train.py configs/mae/mae_vit-mini-p4_1xb128-coslr-50e_cifar100.py
_base_ = [
    '../_base_/models/mae_vit-mini-p4_32px.py',
    '../_base_/datasets/cifar100.py',
    '../_base_/schedules/mae_1xb128-coslr-50e.py',
    '../_base_/default_runtime.py',
]
