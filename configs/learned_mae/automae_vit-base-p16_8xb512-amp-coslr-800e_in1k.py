# AutoMAE, ViT-B/16 on ImageNet-1K, on MAE's recipe. No labels enter. The masker
# reads the attention of an encoder pretrained by MAE: model.masker.checkpoint.
# Cost: MAE's 800 epochs at batch 4,096 on 8 GPUs, with an unmasked pass of a frozen encoder in a step. Not run yet.
# Run:  bash tools/dist_train.sh configs/learned_mae/automae_vit-base-p16_8xb512-amp-coslr-800e_in1k.py 8
_base_ = ['../mae/mae_vit-base-p16_8xb512-amp-coslr-800e_in1k.py', '../_base_/models/automae.py']

model = dict(
    **_base_.automae,
    masker=dict(
        **_base_.automae_masker,
        num_heads=12,
        checkpoint='work_dirs/mae_vit-base-p16_8xb512-amp-coslr-800e_in1k/epoch_800.pth'))
optim_wrapper = dict(
    _delete_=True,
    constructor='mmmlo.MultiLevelOptimWrapperConstructor',
    levels=dict(
        pretrain=dict(
            type=_base_.optim_wrapper.type,
            optimizer=_base_.optim_wrapper.optimizer,
            paramwise_cfg=_base_.optim_wrapper.paramwise_cfg),
        discriminator=dict(
            optimizer=dict(type='Adam', lr=_base_.optim_wrapper.optimizer.lr, betas=(0.9, 0.95), fused=True))))
train_cfg = _base_.automae_loop
custom_hooks = [*_base_.custom_hooks, *_base_.automae_hooks]
