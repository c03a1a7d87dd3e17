# Food-101, 101 classes: 75,750 training and 25,250 test images.
# Cost: 59,100 steps of 128 images.
# Run:  python tools/train.py configs/benchmarks/vit-base-p16_1xb128-coslr-100e_food101.py --backbone CHECKPOINT
_base_ = '../_base_/benchmarks/fine-grained.py'

model = dict(data_preprocessor=dict(num_classes=101), head=dict(num_classes=101))
train_dataloader = dict(dataset=dict(type='Food101', data_root='data/food101', split='train'))
val_dataloader = dict(dataset=dict(type='Food101', data_root='data/food101', split='test'))
test_dataloader = val_dataloader
