# Any folder of photographs, in data/images as image_folder_32px.py has it, cropped as ImageNet's are, to 160 pixels.
_base_ = './image_folder_32px.py'

train_pipeline = [
    dict(type='mmmlo.LoadImage'),
    # What RandomResizedCrop(backend='pillow') gives but for rounding, in a fraction of its time.
    dict(type='mmmlo.TorchRandomResizedCrop', scale=160, crop_ratio_range=(0.2, 1.0), interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
# 183 to 160 is 256 to 224, the usual evaluation of ImageNet.
test_pipeline = [
    dict(type='mmmlo.LoadImage'),
    dict(type='ResizeEdge', scale=183, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=160),
    dict(type='PackInputs'),
]

train_split = dict(pipeline=train_pipeline)
train_features = dict(pipeline=test_pipeline)
test_split = dict(pipeline=test_pipeline)

train_dataloader = dict(batch_size=64, dataset=dict(dataset=train_split))
finetune_dataset = dict(dataset=train_split)
masking_dataset = dict(dataset=train_split)
val_dataloader = dict(dataset=dict(dataset=train_features))
val_cfg = dict(bank_dataloader=dict(dataset=dict(dataset=train_features)))
test_dataloader = dict(dataset=test_split)
test_cfg = dict(bank_dataloader=dict(dataset=train_features))
