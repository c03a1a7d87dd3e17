# Fine-tunes MAE's mini ViT on CIFAR-100, by MLO-MAE's recipe.
# Cost: 39,000 steps of 128 images.
# Run:  python tools/train.py configs/mae/benchmarks/vit-mini-p4_1xb128-coslr-100e_cifar100.py --backbone CHECKPOINT
_base_ = '../../_base_/benchmarks/vit-mini-p4_1xb128-coslr-100e_cifar100.py'

work_dir = 'work_dirs/mae_vit-mini-p4_1xb128-coslr-100e_cifar100'
