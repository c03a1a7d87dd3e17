# Oxford 102 Flowers, 102 classes: 2,040 training and 6,149 test images.
# Its training and validation split are trained on.
# Cost: 1,500 steps of 128 images.
# Run:  python tools/train.py configs/benchmarks/vit-base-p16_1xb128-coslr-100e_flowers102.py --backbone CHECKPOINT
_base_ = '../_base_/benchmarks/fine-grained.py'

model = dict(data_preprocessor=dict(num_classes=102), head=dict(num_classes=102))
train_dataloader = dict(dataset=dict(type='Flowers102', data_root='data/flowers102', split='trainval'))
val_dataloader = dict(dataset=dict(type='Flowers102', data_root='data/flowers102', split='test'))
test_dataloader = val_dataloader
