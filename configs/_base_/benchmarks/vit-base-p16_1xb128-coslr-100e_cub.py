# CUB-200-2011, 200 classes: 5,994 training and 5,794 test images.
_base_ = './fine-grained.py'

model = dict(data_preprocessor=dict(num_classes=200), head=dict(num_classes=200))
train_dataloader = dict(dataset=dict(type='CUB', data_root='data/cub', split='train'))
val_dataloader = dict(dataset=dict(type='CUB', data_root='data/cub', split='test'))
test_dataloader = val_dataloader
