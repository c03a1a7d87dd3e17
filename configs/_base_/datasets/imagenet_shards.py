# ImageNet-1K as imagenet.py has it, in tar files as WebDataset writes them: data/imagenet-shards/train-0000.tar and so on,
# each image NAME.jpg beside its class NAME.cls. Any URL that fsspec reads may stand in place of the folder.
_base_ = './imagenet.py'

shards = dict(_delete_=True, type='mmmlo.ShardedImages', shards='data/imagenet-shards/train-{0000..0146}.tar')
test_shards = dict(shards, shards='data/imagenet-shards/val-{0000..0006}.tar')

train_split = dict(**shards, pipeline=_base_.train_pipeline)
train_features = dict(**shards, pipeline=_base_.test_pipeline)
test_split = dict(**test_shards, pipeline=_base_.test_pipeline)

train_dataloader = dict(dataset=dict(dataset=train_split))
finetune_dataset = dict(dataset=train_split)
masking_dataset = dict(dataset=train_split)
val_dataloader = dict(dataset=dict(dataset=train_features))
val_cfg = dict(bank_dataloader=dict(dataset=dict(dataset=train_features)))
test_dataloader = dict(dataset=test_split)
test_cfg = dict(bank_dataloader=dict(dataset=train_features))
