# Fine-tunes MAE's ViT-B/16 on iNaturalist 2019, by MAE's recipe.
# Cost: 207,100 steps of 128 images.
# Run:  python tools/dataset_converters/inat2019.py SRC data/inat2019   (once)
#       python tools/train.py configs/mae/benchmarks/vit-base-p16_1xb128-coslr-100e_inat2019.py --backbone CHECKPOINT
_base_ = '../../_base_/benchmarks/vit-base-p16_1xb128-coslr-100e_inat2019.py'

work_dir = 'work_dirs/mae_vit-base-p16_1xb128-coslr-100e_inat2019'
