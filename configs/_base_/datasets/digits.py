# 1,797 scanned digits at 32 px, which come with scikit-learn.
_base_ = './parts.py'

# Digits must not be mirrored.
train_pipeline = [dict(type='RandomCrop', crop_size=32, padding=2), dict(type='PackInputs')]
test_pipeline = [dict(type='PackInputs')]

train_split = dict(type='mmmlo.Digits', split='train', pipeline=train_pipeline)
# The same images without augmentation, for features.
train_features = dict(train_split, pipeline=test_pipeline)
test_split = dict(train_features, split='test')

train_dataloader = dict(num_workers=0, persistent_workers=False, pin_memory=False, dataset=dict(dataset=train_split))
finetune_dataset = dict(dataset=train_split)
masking_dataset = dict(dataset=train_split)
val_dataloader = dict(num_workers=0, dataset=dict(dataset=train_features))
val_cfg = dict(bank_dataloader=dict(dataset=dict(dataset=train_features)))
test_dataloader = dict(num_workers=0, dataset=test_split)
test_cfg = dict(bank_dataloader=dict(dataset=train_features))
