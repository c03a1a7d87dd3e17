# AttMask with hints, on cluttered digits: masked is what a moving average attends to most, but for a few
# patches that are shown.
# Run:  python tools/train.py configs/mae/attmask_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py
_base_ = ['./mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py', '../_base_/models/class_attention.py']

model = dict(**_base_.attmask)
custom_hooks = [*_base_.custom_hooks, *_base_.class_attention_hooks]
