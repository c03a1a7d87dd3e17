# Cars, pedestrians and signs of CamVid's street scenes at 64 px, in crops of 3 to 5 times their size: a small part of
# each image matters. In training, crops are drawn anew each time; in features they are fixed.
_base_ = './parts.py'

classes = ('sign symbol', 'car', 'pedestrian')
train_pipeline = [dict(type='PackInputs')]
test_pipeline = train_pipeline

train_split = dict(
    type='mmmlo.ObjectCrops',
    dataset=dict(
        type='mmmlo.CamVidDataset',
        data_root='data/camvid',
        data_prefix=dict(img_path='images/train', seg_map_path='annotations/train')),
    classes=classes,
    pipeline=train_pipeline)
train_features = dict(train_split, fresh=False, copies=4, pipeline=test_pipeline)
test_split = dict(
    train_features,
    dataset=dict(
        train_split['dataset'], data_prefix=dict(img_path='images/val', seg_map_path='annotations/val')))
# For looking at alone: whether scores find the objects.
worth_split = dict(train_features, pipeline=[dict(type='PackInputs', meta_keys=('worth', ))])

train_dataloader = dict(num_workers=0, persistent_workers=False, pin_memory=False, dataset=dict(dataset=train_split))
finetune_dataset = dict(dataset=train_split)
masking_dataset = dict(dataset=train_split)
val_dataloader = dict(num_workers=0, dataset=dict(dataset=train_features))
val_cfg = dict(bank_dataloader=dict(dataset=dict(dataset=train_features)))
test_dataloader = dict(num_workers=0, dataset=test_split)
test_cfg = dict(bank_dataloader=dict(dataset=train_features))
