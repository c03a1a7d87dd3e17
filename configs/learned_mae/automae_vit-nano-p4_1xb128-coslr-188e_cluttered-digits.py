# AutoMAE, 96 dims x 4 blocks, on cluttered digits. No labels enter.
# Cost: 1,504 pretrain and as many discriminator steps. Needs no download.
# Run:  python tools/train.py configs/learned_mae/automae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py
_base_ = ['../mae/mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py', '../_base_/models/automae.py']

model = dict(**_base_.automae, masker=dict(**_base_.automae_masker, num_heads=3))
optim_wrapper = dict(
    _delete_=True,
    constructor='mmmlo.MultiLevelOptimWrapperConstructor',
    levels=dict(
        pretrain=dict(
            optimizer=_base_.optim_wrapper.optimizer, paramwise_cfg=_base_.optim_wrapper.paramwise_cfg),
        discriminator=dict(
            optimizer=dict(type='Adam', lr=_base_.optim_wrapper.optimizer.lr, betas=(0.9, 0.95), fused=True))))
train_cfg = _base_.automae_loop
custom_hooks = [*_base_.custom_hooks, *_base_.automae_hooks]
