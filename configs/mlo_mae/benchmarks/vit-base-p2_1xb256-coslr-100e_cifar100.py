# Fine-tunes MLO-MAE's ViT-B/2 on CIFAR-100, by MLO-MAE's recipe.
# Cost: 19,500 steps of 256 images; needs a GPU.
# Run:  python tools/train.py configs/mlo_mae/benchmarks/vit-base-p2_1xb256-coslr-100e_cifar100.py --backbone CHECKPOINT
_base_ = '../../_base_/benchmarks/vit-base-p2_1xb256-coslr-100e_cifar100.py'

work_dir = 'work_dirs/mlo-mae_vit-base-p2_1xb256-coslr-100e_cifar100'
