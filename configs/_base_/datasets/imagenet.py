# ImageNet-1K in data/imagenet: train/<wnid>/*, val/*, and meta/train.txt, meta/val.txt as mmpretrain has them.
# The official validation set is the test split here: nothing is trained or chosen on it.
_base_ = './parts.py'

train_pipeline = [
    dict(type='mmmlo.LoadImage'),
    # What RandomResizedCrop(backend='pillow') gives but for rounding, in a fraction of its time.
    dict(type='mmmlo.TorchRandomResizedCrop', scale=224, crop_ratio_range=(0.2, 1.0), interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='mmmlo.LoadImage'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

train_split = dict(type='ImageNet', data_root='data/imagenet', split='train', pipeline=train_pipeline)
# The same images without augmentation, for features.
train_features = dict(train_split, pipeline=test_pipeline)
test_split = dict(train_features, split='val')

train_dataloader = dict(num_workers=8, dataset=dict(dataset=train_split))
finetune_dataset = dict(dataset=train_split)
masking_dataset = dict(dataset=train_split)
val_dataloader = dict(num_workers=8, dataset=dict(dataset=train_features))
val_cfg = dict(bank_dataloader=dict(dataset=dict(dataset=train_features)))
test_dataloader = dict(num_workers=8, dataset=test_split)
test_cfg = dict(bank_dataloader=dict(dataset=train_features))
