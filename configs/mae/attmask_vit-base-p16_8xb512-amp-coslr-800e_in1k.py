# AttMask with hints, ViT-B/16 on ImageNet-1K, by MAE's recipe: masked is what a moving average attends to most, but for
# a few patches that are shown. Not run yet.
# Run:  bash tools/dist_train.sh configs/mae/attmask_vit-base-p16_8xb512-amp-coslr-800e_in1k.py 8
_base_ = ['./mae_vit-base-p16_8xb512-amp-coslr-800e_in1k.py', '../_base_/models/class_attention.py']

model = dict(**_base_.attmask)
custom_hooks = [*_base_.custom_hooks, *_base_.class_attention_hooks]
