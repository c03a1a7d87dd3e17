# MLO-MAE, 192 dims x 6 blocks: D_u is small images without labels, in one folder or in folders within folders; D_tr, D_val
# and kNN are a few labelled images of 10 classes.
# Cost: for 50,000 images without labels 19,500 pretrain, 9,750 finetune and 9,750 masking steps.
# Run:  ln -s /path/to/images data/unlabelled; ln -s /path/to/labelled data/images   (train/<class>/*, test/<class>/*), then
#       set model.downstream.num_classes
#       python tools/train.py configs/mlo_mae/mlo-mae_vit-mini-p4_1xb128-coslr-50e_unlabelled.py
_base_ = './mlo-mae_vit-mini-p4_1xb128-coslr-50e_image-folder.py'

unlabelled = dict(
    type='mmmlo.ImageFolder', data_root='data/unlabelled', with_label=False, pipeline=_base_.train_pipeline)
train_dataloader = dict(dataset=dict(_delete_=True, **unlabelled))
