# Fine-tunes MLO-MAE's nano ViT on scikit-learn's digits.
# Cost: 440 steps, a few minutes on two CPU cores. Needs no download.
# Run:  python tools/train.py configs/mlo_mae/benchmarks/vit-nano-p4_1xb64-coslr-20e_digits.py --backbone CHECKPOINT
_base_ = '../../_base_/benchmarks/vit-nano-p4_1xb64-coslr-20e_digits.py'

work_dir = 'work_dirs/mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits'
