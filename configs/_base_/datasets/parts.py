# What all data sets share: parts, loaders and kNN accuracy. Each fills in its images, as cifar10.py does.
# D_u and D_tr are the same 80 % of the training split, D_val is the other 20 %; the seed of the cut is recorded here.
# The test split is read by test_dataloader alone.
split = dict(type='mmmlo.SplitDataset', fractions=dict(train=0.8, val=0.2), seed=0)

train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**split, part='train'))
# Data of MLO-MAE's levels II and III.
finetune_dataset = dict(**split, part='train')
masking_dataset = dict(**split, part='val')

# kNN top-1 while training: D_tr votes, D_val is asked.
val_dataloader = dict(
    batch_size=256,
    num_workers=2,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**split, part='val'))
val_cfg = dict(
    type='mmmlo.KNNValLoop', bank_dataloader=dict(dataset=dict(**split, part='train')), query_split='val')
val_evaluator = dict(type='Accuracy', topk=(1, ), prefix='knn')

# kNN top-1 of the test split, with the whole training split voting: tools/test.py.
test_dataloader = dict(
    batch_size=256,
    num_workers=2,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False))
test_cfg = dict(type='mmmlo.KNNTestLoop', query_split='test')
test_evaluator = val_evaluator
