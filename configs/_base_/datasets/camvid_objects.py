# Cars, pedestrians and signs of CamVid's street scenes at 64 px, in crops of 3 to 5 times their size: a small part of
# each image matters. In training, crops are drawn anew each time; in features they are fixed.
# D_tr is cut from the first 80 scenes, D_val from the other 20 of the training split, so that they share none.
_base_ = './parts.py'

classes = ('sign symbol', 'car', 'pedestrian')
train_pipeline = [dict(type='PackInputs')]

train_split = dict(
    type='mmmlo.ObjectCrops',
    data_root='data/camvid',
    data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
    scenes=dict(type='mmmlo.CamVidDataset', indices=80),
    classes=classes,
    pipeline=train_pipeline)
val_split = dict(train_split, scenes=dict(type='mmmlo.CamVidDataset', indices=list(range(80, 100))))
# Of whole splits, with crops that are fixed, for features.
train_features = dict(train_split, scenes=dict(type='mmmlo.CamVidDataset'), fresh=False, copies=4)
test_split = dict(train_features, data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'))
fixed = dict(_delete_=True, fresh=False, copies=4)
# For looking at alone: whether scores find the objects.
worth_split = dict(train_features, pipeline=[dict(type='PackInputs', meta_keys=('worth', ))])

train_dataloader = dict(
    num_workers=0, persistent_workers=False, pin_memory=False, dataset=dict(_delete_=True, **train_split))
finetune_dataset = dict(_delete_=True, **train_split)
masking_dataset = dict(_delete_=True, **val_split)
val_dataloader = dict(num_workers=0, dataset=dict(**fixed, **val_split))
val_cfg = dict(bank_dataloader=dict(dataset=dict(**fixed, **train_split)))
test_dataloader = dict(num_workers=0, dataset=test_split)
test_cfg = dict(bank_dataloader=dict(dataset=train_features))
