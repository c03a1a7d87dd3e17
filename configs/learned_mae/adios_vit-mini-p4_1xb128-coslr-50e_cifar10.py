# ADIOS on patches, 192 dims x 6 blocks, on CIFAR-10. No labels enter.
# Cost: 15,600 pretrain and as many masking steps, both on all patches on 40,000 images.
# Run:  python tools/train.py configs/learned_mae/adios_vit-mini-p4_1xb128-coslr-50e_cifar10.py
_base_ = ['../mae/mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py', '../_base_/models/adios.py']

model = dict(**_base_.adios, masker=dict(**_base_.adios_masker, patch_size=4))
player = dict(
    optimizer=_base_.optim_wrapper.optimizer,
    paramwise_cfg=_base_.optim_wrapper.paramwise_cfg)
optim_wrapper = dict(
    _delete_=True,
    constructor='mmmlo.MultiLevelOptimWrapperConstructor',
    levels=dict(pretrain=player, masking=player))
train_cfg = _base_.adios_loop
