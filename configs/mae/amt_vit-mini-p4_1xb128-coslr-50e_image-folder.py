# AMT, on a folder of small images: masked patches are drawn in proportion to what a moving average attends to,
# and 40 % of all are thrown away.
# Run:  python tools/train.py configs/mae/amt_vit-mini-p4_1xb128-coslr-50e_image-folder.py
_base_ = ['./mae_vit-mini-p4_1xb128-coslr-50e_image-folder.py', '../_base_/models/class_attention.py']

model = dict(**_base_.amt)
custom_hooks = [*_base_.custom_hooks, *_base_.class_attention_hooks]
