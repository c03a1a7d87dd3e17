# Any folder of small images, one folder a class: data/images/train/<class>/*.png and data/images/test/<class>/*.png.
# Link or copy your folder there.
# D_u and D_tr are the same 80 % of the training split, D_val is the other 20 %; the seed of the cut is recorded here.
# The test split is read by test_dataloader alone.
split = dict(type='mmmlo.SplitDataset', fractions=dict(train=0.8, val=0.2), seed=0)

data_root = 'data/images'

train_pipeline = [
    dict(type='mmmlo.LoadImage'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='mmmlo.LoadImage'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]

train_split = dict(type='CustomDataset', data_root=data_root, data_prefix='train', pipeline=train_pipeline)
# The same images without augmentation, for features.
train_features = dict(type='CustomDataset', data_root=data_root, data_prefix='train', pipeline=test_pipeline)
test_split = dict(type='CustomDataset', data_root=data_root, data_prefix='test', pipeline=test_pipeline)

train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**split, part='train', dataset=train_split))
# Data of MLO-MAE's levels II and III.
finetune_dataset = dict(**split, part='train', dataset=train_split)
masking_dataset = dict(**split, part='val', dataset=train_split)

# kNN top-1 while training: D_tr votes, D_val is asked.
val_dataloader = dict(
    batch_size=256,
    num_workers=2,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**split, part='val', dataset=train_features))
val_cfg = dict(
    type='mmmlo.KNNValLoop',
    bank_dataloader=dict(dataset=dict(**split, part='train', dataset=train_features)),
    query_split='val')
val_evaluator = dict(type='Accuracy', topk=(1, ), prefix='knn')

# kNN top-1 of the test split, with the whole training split voting: tools/test.py.
test_dataloader = dict(
    batch_size=256,
    num_workers=2,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=test_split)
test_cfg = dict(type='mmmlo.KNNTestLoop', bank_dataloader=dict(dataset=train_features), query_split='test')
test_evaluator = val_evaluator
