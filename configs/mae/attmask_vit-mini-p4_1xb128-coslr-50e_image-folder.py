# AttMask with hints, on a folder of small images: masked is what a moving average attends to most, but for a few
# patches that are shown.
# Run:  python tools/train.py configs/mae/attmask_vit-mini-p4_1xb128-coslr-50e_image-folder.py
_base_ = ['./mae_vit-mini-p4_1xb128-coslr-50e_image-folder.py', '../_base_/models/class_attention.py']

model = dict(**_base_.attmask)
custom_hooks = [*_base_.custom_hooks, *_base_.class_attention_hooks]
