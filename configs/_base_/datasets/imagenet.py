# ImageNet-1K in data/imagenet: train/<wnid>/*, val/*, and meta/train.txt, meta/val.txt as mmpretrain has them.
# The official validation set is the test split here: nothing is trained or chosen on it.
# D_u and D_tr are the same 80 % of the training split, D_val is the other 20 %; the seed of the cut is recorded here.
# The test split is read by test_dataloader alone.
split = dict(type='mmmlo.SplitDataset', fractions=dict(train=0.8, val=0.2), seed=0)

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
train_features = dict(type='ImageNet', data_root='data/imagenet', split='train', pipeline=test_pipeline)
test_split = dict(type='ImageNet', data_root='data/imagenet', split='val', pipeline=test_pipeline)

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
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
    num_workers=8,
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
    num_workers=8,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=test_split)
test_cfg = dict(type='mmmlo.KNNTestLoop', bank_dataloader=dict(dataset=train_features), query_split='test')
test_evaluator = val_evaluator
