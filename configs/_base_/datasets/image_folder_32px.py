# Any folder of small images, one folder a class: data/images/train/<class>/* and data/images/test/<class>/*.
# Link or copy your folder there.
_base_ = './parts.py'

train_pipeline = [
    dict(type='mmmlo.LoadImage'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='mmmlo.LoadImage'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]

train_split = dict(type='mmmlo.ImageFolder', data_root='data/images', data_prefix='train', pipeline=train_pipeline)
# The same images without augmentation, for features.
train_features = dict(train_split, pipeline=test_pipeline)
test_split = dict(train_features, data_prefix='test')

train_dataloader = dict(dataset=dict(dataset=train_split))
finetune_dataset = dict(dataset=train_split)
masking_dataset = dict(dataset=train_split)
val_dataloader = dict(dataset=dict(dataset=train_features))
val_cfg = dict(bank_dataloader=dict(dataset=dict(dataset=train_features)))
test_dataloader = dict(dataset=test_split)
test_cfg = dict(bank_dataloader=dict(dataset=train_features))
