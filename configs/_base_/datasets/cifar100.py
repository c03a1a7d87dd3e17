# CIFAR-100; downloaded to data/cifar100 where it is not there yet.
_base_ = './cifar10.py'

train_split = train_features = test_split = dict(type='CIFAR100', data_root='data/cifar100')

train_dataloader = dict(dataset=dict(dataset=train_split))
finetune_dataset = dict(dataset=train_split)
masking_dataset = dict(dataset=train_split)
val_dataloader = dict(dataset=dict(dataset=train_features))
val_cfg = dict(bank_dataloader=dict(dataset=dict(dataset=train_features)))
test_dataloader = dict(dataset=test_split)
test_cfg = dict(bank_dataloader=dict(dataset=train_features))
