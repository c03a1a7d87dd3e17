# Guided MAE, 192 dims x 6 blocks, on a folder of photographs at 160 px with 10 classes.
# Run:  ln -s /path/to/images data/images   (train/<class>/*, test/<class>/*), then set model.masker.head.num_classes
#       python tools/train.py configs/guided_mae/guided-mae_vit-mini-p16_1xb64-coslr-50e_image-folder-160px.py
_base_ = ['../mae/mae_vit-mini-p16_1xb64-coslr-50e_image-folder-160px.py', '../_base_/models/guided.py']

model = dict(
    **_base_.guided,
    masker=dict(
        **_base_.guided_attention,
        patch_size=16,
        margin=8,
        head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=96)))

optim_wrapper = dict(
    _delete_=True,
    constructor='mmmlo.MultiLevelOptimWrapperConstructor',
    levels=dict(
        pretrain=dict(
            optimizer=_base_.optim_wrapper.optimizer, paramwise_cfg=_base_.optim_wrapper.paramwise_cfg),
        masking=_base_.guided_level))
train_cfg = dict(
    type='mmmlo.MultiLevelTrainLoop', dataloaders=dict(masking=dict(batch_size=64, dataset=_base_.finetune_dataset)))
