# 1,797 scanned digits at 20 px on pieces of two photographs at 32 px, both of which come with scikit-learn: patches that
# differ in worth. In training, backgrounds, places and colours are new each time; in features they are fixed.
_base_ = './parts.py'

train_pipeline = [dict(type='PackInputs')]
test_pipeline = train_pipeline

train_split = dict(type='mmmlo.ClutteredDigits', split='train', pipeline=train_pipeline)
train_features = dict(train_split, fresh=False, pipeline=test_pipeline)
test_split = dict(train_features, split='test', copies=5)
# For looking at alone: whether scores find the digits.
worth_split = dict(train_features, pipeline=[dict(type='PackInputs', meta_keys=('worth', ))])

train_dataloader = dict(num_workers=0, persistent_workers=False, pin_memory=False, dataset=dict(dataset=train_split))
finetune_dataset = dict(dataset=train_split)
masking_dataset = dict(dataset=train_split)
val_dataloader = dict(num_workers=0, dataset=dict(dataset=train_features))
val_cfg = dict(bank_dataloader=dict(dataset=dict(dataset=train_features)))
test_dataloader = dict(num_workers=0, dataset=test_split)
test_cfg = dict(bank_dataloader=dict(dataset=dict(train_features, copies=3)))
