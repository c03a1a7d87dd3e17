# A folder of small images with labels: all of the training split is trained on.
_base_ = '../../datasets/image_folder_32px.py'

train_dataloader = dict(dataset=dict(_delete_=True, **_base_.train_split))

test_cfg = dict(_delete_=True)
test_evaluator = dict(_delete_=True, type='Accuracy', topk=(1, ))
val_dataloader = dict(_delete_=True, **_base_.test_dataloader)
val_cfg = dict(_delete_=True)
val_evaluator = dict(_delete_=True, type='Accuracy', topk=(1, ))
