# Fine-tunes CL-MAE's ViT-B/2 on CIFAR-100, by MLO-MAE's recipe.
# Cost: 19,500 steps of 256 images; needs a GPU.
# Run:  python tools/train.py configs/cl_mae/benchmarks/vit-base-p2_1xb256-coslr-100e_cifar100.py --backbone CHECKPOINT
_base_ = '../../_base_/benchmarks/vit-base-p2_1xb256-coslr-100e_cifar100.py'

work_dir = 'work_dirs/cl-mae_vit-base-p2_1xb256-coslr-100e_cifar100'
