# ImageNet-1K with labels: all of the training split is trained on.
_base_ = '../../datasets/imagenet.py'

train_dataloader = dict(dataset=dict(_delete_=True, **_base_.train_split))

test_cfg = dict(_delete_=True)
test_evaluator = dict(_delete_=True, type='Accuracy', topk=(1, 5))
val_dataloader = dict(_delete_=True, **_base_.test_dataloader)
val_cfg = dict(_delete_=True)
val_evaluator = dict(_delete_=True, type='Accuracy', topk=(1, 5))
