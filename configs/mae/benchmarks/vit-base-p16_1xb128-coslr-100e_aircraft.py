# Fine-tunes MAE's ViT-B/16 on FGVC-Aircraft, variants, by MAE's recipe.
# Cost: 5,200 steps of 128 images.
# Run:  python tools/train.py configs/mae/benchmarks/vit-base-p16_1xb128-coslr-100e_aircraft.py --backbone CHECKPOINT
_base_ = '../../_base_/benchmarks/vit-base-p16_1xb128-coslr-100e_aircraft.py'

work_dir = 'work_dirs/mae_vit-base-p16_1xb128-coslr-100e_aircraft'
