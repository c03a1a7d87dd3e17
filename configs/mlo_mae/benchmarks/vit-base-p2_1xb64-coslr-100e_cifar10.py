# Fine-tunes MLO-MAE's ViT-B/2 on CIFAR-10, by MLO-MAE's recipe.
# Cost: 78,100 steps of 64 images; needs a GPU.
# Run:  python tools/train.py configs/mlo_mae/benchmarks/vit-base-p2_1xb64-coslr-100e_cifar10.py --backbone CHECKPOINT
_base_ = '../../_base_/benchmarks/vit-base-p2_1xb64-coslr-100e_cifar10.py'

work_dir = 'work_dirs/mlo-mae_vit-base-p2_1xb64-coslr-100e_cifar10'
