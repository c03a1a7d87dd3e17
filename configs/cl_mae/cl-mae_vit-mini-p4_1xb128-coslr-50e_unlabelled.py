# CL-MAE, 192 dims x 6 blocks, on small images without labels, in one folder or in folders within folders. Nothing is
# validated: docs/data.md says how to watch kNN with a few labelled images.
# Cost: for 50,000 images 19,500 pretrain and 19,500 masking steps.
# Run:  ln -s /path/to/images data/unlabelled
#       python tools/train.py configs/cl_mae/cl-mae_vit-mini-p4_1xb128-coslr-50e_unlabelled.py
_base_ = './cl-mae_vit-mini-p4_1xb128-coslr-50e_image-folder.py'

unlabelled = dict(
    type='mmmlo.ImageFolder', data_root='data/unlabelled', with_label=False, pipeline=_base_.train_pipeline)
train_dataloader = dict(dataset=dict(_delete_=True, **unlabelled))

val_dataloader = val_cfg = val_evaluator = None
test_dataloader = test_cfg = test_evaluator = None
