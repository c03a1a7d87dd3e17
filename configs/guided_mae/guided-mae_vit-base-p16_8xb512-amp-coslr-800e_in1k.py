# Guided MAE, ViT-B/16 on ImageNet-1K, on MAE's recipe. Labels of D_tr, 80 % of train, teach the masker.
# Cost: MAE's 800 epochs at batch 4,096 on 8 GPUs, and four steps of the masker on 64 images a GPU in each. Not run yet.
# Run:  bash tools/dist_train.sh configs/guided_mae/guided-mae_vit-base-p16_8xb512-amp-coslr-800e_in1k.py 8
_base_ = ['../mae/mae_vit-base-p16_8xb512-amp-coslr-800e_in1k.py', '../_base_/models/guided.py']

model = dict(
    **_base_.guided,
    masker=dict(
        **_base_.guided_attention,
        patch_size=16,
        margin=8,
        head=dict(type='mmpretrain.LinearClsHead', num_classes=1000, in_channels=96)))

optim_wrapper = dict(
    _delete_=True,
    constructor='mmmlo.MultiLevelOptimWrapperConstructor',
    levels=dict(
        pretrain=dict(
            type=_base_.optim_wrapper.type,
            optimizer=_base_.optim_wrapper.optimizer,
            paramwise_cfg=_base_.optim_wrapper.paramwise_cfg),
        masking=_base_.guided_level))
train_cfg = dict(
    type='mmmlo.MultiLevelTrainLoop', dataloaders=dict(masking=dict(batch_size=64, dataset=_base_.finetune_dataset)))
