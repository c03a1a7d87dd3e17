# CIFAR-10 with labels: all of the training split is trained on.
_base_ = '../../datasets/cifar10.py'

# MLO-MAE's augmentation for CIFAR-10.
train_pipeline = [
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    # Holes have the mean of the training images.
    dict(type='Cutout', shape=16, pad_val=(125, 123, 114), prob=1.0),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(_delete_=True, **{**_base_.train_split, 'pipeline': train_pipeline}))

test_cfg = dict(_delete_=True)
test_evaluator = dict(_delete_=True, type='Accuracy', topk=(1, ))
val_dataloader = dict(_delete_=True, **_base_.test_dataloader)
val_cfg = dict(_delete_=True)
val_evaluator = dict(_delete_=True, type='Accuracy', topk=(1, ))
