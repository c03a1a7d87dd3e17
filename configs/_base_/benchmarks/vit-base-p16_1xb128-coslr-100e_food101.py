# Food-101, 101 classes: 75,750 training and 25,250 test images.
_base_ = './fine-grained.py'

model = dict(data_preprocessor=dict(num_classes=101), head=dict(num_classes=101))
train_dataloader = dict(dataset=dict(type='Food101', data_root='data/food101', split='train'))
val_dataloader = dict(dataset=dict(type='Food101', data_root='data/food101', split='test'))
test_dataloader = val_dataloader
