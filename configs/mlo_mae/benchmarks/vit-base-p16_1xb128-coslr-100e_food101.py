# Fine-tunes MLO-MAE's ViT-B/16 on Food-101, by MAE's recipe.
# Cost: 59,100 steps of 128 images.
# Run:  python tools/train.py configs/mlo_mae/benchmarks/vit-base-p16_1xb128-coslr-100e_food101.py --backbone CHECKPOINT
_base_ = '../../_base_/benchmarks/vit-base-p16_1xb128-coslr-100e_food101.py'

work_dir = 'work_dirs/mlo-mae_vit-base-p16_1xb128-coslr-100e_food101'
