# AMT, ViT-B/16 on ImageNet-1K, by MAE's recipe: masked patches are drawn in proportion to what a moving average attends to,
# and 40 % of all are thrown away. Not run yet.
# Run:  bash tools/dist_train.sh configs/mae/amt_vit-base-p16_8xb512-amp-coslr-800e_in1k.py 8
_base_ = ['./mae_vit-base-p16_8xb512-amp-coslr-800e_in1k.py', '../_base_/models/class_attention.py']

model = dict(**_base_.amt)
custom_hooks = [*_base_.custom_hooks, *_base_.class_attention_hooks]
