# MAE, ViT-B with 2 x 2 pixel patches, on CIFAR-10: the baseline of MLO-MAE's presets, with as many pretrain steps.
# Cost: 125,112 steps of 128 images (401 epochs of 40,000 images, the nearest to 125,200); needs a GPU.
# Run:  python tools/train.py configs/mae/mae_vit-base-p2_1xb128-coslr_cifar10.py --amp
_base_ = [
    '../_base_/models/mae_vit-base-p2_32px.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/mae_1xb128-coslr-401e.py',
    '../_base_/default_runtime.py',
]
