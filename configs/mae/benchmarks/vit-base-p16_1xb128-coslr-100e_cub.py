# Fine-tunes MAE's ViT-B/16 on CUB-200-2011, by MAE's recipe.
# Cost: 4,600 steps of 128 images.
# Run:  python tools/train.py configs/mae/benchmarks/vit-base-p16_1xb128-coslr-100e_cub.py --backbone CHECKPOINT
_base_ = '../../_base_/benchmarks/vit-base-p16_1xb128-coslr-100e_cub.py'

work_dir = 'work_dirs/mae_vit-base-p16_1xb128-coslr-100e_cub'
