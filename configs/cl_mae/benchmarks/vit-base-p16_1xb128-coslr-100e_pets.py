# Fine-tunes CL-MAE's ViT-B/16 on Oxford-IIIT Pets, by MAE's recipe.
# Cost: 2,800 steps of 128 images.
# Run:  python tools/train.py configs/cl_mae/benchmarks/vit-base-p16_1xb128-coslr-100e_pets.py --backbone CHECKPOINT
_base_ = '../../_base_/benchmarks/vit-base-p16_1xb128-coslr-100e_pets.py'

work_dir = 'work_dirs/cl-mae_vit-base-p16_1xb128-coslr-100e_pets'
