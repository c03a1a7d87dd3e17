# AutoMAE, 192 dims x 6 blocks, on a folder of small images. No labels enter.
# Cost: for 50,000 training images 15,600 pretrain and as many discriminator steps.
# Run:  ln -s /path/to/images data/images   (train/<class>/*, test/<class>/*)
#       python tools/train.py configs/learned_mae/automae_vit-mini-p4_1xb128-coslr-50e_image-folder.py
_base_ = ['../mae/mae_vit-mini-p4_1xb128-coslr-50e_image-folder.py', '../_base_/models/automae.py']

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
