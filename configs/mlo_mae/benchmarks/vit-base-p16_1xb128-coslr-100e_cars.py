# Fine-tunes MLO-MAE's ViT-B/16 on Stanford Cars, by MAE's recipe.
# Cost: 6,300 steps of 128 images.
# Run:  python tools/train.py configs/mlo_mae/benchmarks/vit-base-p16_1xb128-coslr-100e_cars.py --backbone CHECKPOINT
_base_ = '../../_base_/benchmarks/vit-base-p16_1xb128-coslr-100e_cars.py'

work_dir = 'work_dirs/mlo-mae_vit-base-p16_1xb128-coslr-100e_cars'
