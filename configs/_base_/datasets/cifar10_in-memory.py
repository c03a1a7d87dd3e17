# CIFAR-10 as cifar10.py has it, with the training images in one tensor in memory. mmmlo.DeviceDataPreprocessor of the model
# crops and mirrors them on its device; crops and flips are drawn from the same distributions.
_base_ = './cifar10.py'

train_split = dict(type='CIFAR10', data_root='data/cifar10', split='train', pipeline=[])
in_memory = dict(_delete_=True, type='mmmlo.InMemoryImages', padding=4, flip_prob=0.5)

train_dataloader = dict(
    # Fetching a batch takes less time than sending it from a worker.
    num_workers=0,
    persistent_workers=False,
    collate_fn=dict(type='mmmlo.batch_collate'),
    dataset=dict(**in_memory, dataset=dict(**_base_.split, part='train', dataset=train_split)))
finetune_dataset = dict(**in_memory, dataset=dict(**_base_.split, part='train', dataset=train_split))
masking_dataset = dict(**in_memory, dataset=dict(**_base_.split, part='val', dataset=train_split))
