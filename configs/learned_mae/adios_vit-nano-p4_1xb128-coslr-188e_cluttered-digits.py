# ADIOS on patches, 96 dims x 4 blocks, on cluttered digits. No labels enter.
# Cost: 1,504 pretrain and as many masking steps, both on all patches. Needs no download.
# Run:  python tools/train.py configs/learned_mae/adios_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py
_base_ = ['../mae/mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py', '../_base_/models/adios.py']

model = dict(**_base_.adios, masker=dict(**_base_.adios_masker, patch_size=4))
player = dict(
    optimizer=_base_.optim_wrapper.optimizer,
    paramwise_cfg=_base_.optim_wrapper.paramwise_cfg)
optim_wrapper = dict(
    _delete_=True,
    constructor='mmmlo.MultiLevelOptimWrapperConstructor',
    levels=dict(pretrain=player, masking=player))
train_cfg = _base_.adios_loop
