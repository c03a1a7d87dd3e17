# A folder of photographs with 10 classes: data/images/train/<class>/* and data/images/test/<class>/*.
_base_ = './fine-grained.py'

model = dict(data_preprocessor=dict(num_classes=10), head=dict(num_classes=10))
train_dataloader = dict(dataset=dict(type='CustomDataset', data_root='data/images', data_prefix='train'))
val_dataloader = dict(dataset=dict(type='CustomDataset', data_root='data/images', data_prefix='test'))
test_dataloader = val_dataloader
# There may be fewer than five classes.
val_evaluator = dict(topk=(1, ))
test_evaluator = val_evaluator
