# CUB-200-2011, 200 classes: 5,994 training and 5,794 test images.
# Cost: 4,600 steps of 128 images.
# Run:  python tools/train.py configs/benchmarks/vit-base-p16_1xb128-coslr-100e_cub.py --backbone CHECKPOINT
_base_ = '../_base_/benchmarks/fine-grained.py'

model = dict(data_preprocessor=dict(num_classes=200), head=dict(num_classes=200))
train_dataloader = dict(dataset=dict(type='CUB', data_root='data/cub', split='train'))
val_dataloader = dict(dataset=dict(type='CUB', data_root='data/cub', split='test'))
test_dataloader = val_dataloader
