# Fine-tunes CL-MAE's mini ViT on CIFAR-10, by MLO-MAE's recipe.
# Cost: 39,000 steps of 128 images.
# Run:  python tools/train.py configs/cl_mae/benchmarks/vit-mini-p4_1xb128-coslr-100e_cifar10.py --backbone CHECKPOINT
_base_ = '../../_base_/benchmarks/vit-mini-p4_1xb128-coslr-100e_cifar10.py'

work_dir = 'work_dirs/cl-mae_vit-mini-p4_1xb128-coslr-100e_cifar10'
