# Guided MAE, 192 dims x 6 blocks, on CIFAR-10. Objects fill these images, so that its weights stay near 1.
# Run:  python tools/train.py configs/guided_mae/guided-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py
_base_ = ['../mae/mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py', '../_base_/models/guided.py']

model = dict(
    **_base_.guided,
    masker=dict(
        **_base_.guided_attention,
        patch_size=4,
        margin=2,
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
