# MLO-MAE without labels, 192 dims x 6 blocks, on small images in one folder or in folders within folders: a small decoder,
# trained on D_tr, fills in random masks of D_val, and its loss guides the masker. Ours. D_u and D_tr are the same 80 % of
# the images, D_val is the rest. Nothing is validated: docs/data.md says how to watch kNN with a few labelled images.
# Cost: for 50,000 images 15,600 pretrain, 7,800 finetune and 7,800 masking steps.
# Run:  ln -s /path/to/images data/unlabelled
#       python tools/train.py configs/mlo_mae/mlo-mae_vit-mini-p4_1xb128-coslr-50e_unlabelled_reconstruction-guided.py
_base_ = ['./mlo-mae_vit-mini-p4_1xb128-coslr-50e_unlabelled.py', '../_base_/downstream/reconstruction.py']

model = dict(downstream=dict(_delete_=True, **_base_.reconstruction_task))
train_dataloader = dict(dataset=dict(_delete_=True, **_base_.split, by_class=False, part='train', dataset=_base_.unlabelled))
train_cfg = dict(
    dataloaders=dict(
        finetune=dict(dataset=dict(_delete_=True, **_base_.split, by_class=False, part='train', dataset=_base_.unlabelled)),
        masking=dict(dataset=dict(_delete_=True, **_base_.split, by_class=False, part='val', dataset=_base_.unlabelled))))

val_dataloader = val_cfg = val_evaluator = None
test_dataloader = test_cfg = test_evaluator = None
