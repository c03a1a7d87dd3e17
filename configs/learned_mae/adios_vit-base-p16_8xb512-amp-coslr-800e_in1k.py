# ADIOS on patches, ViT-B/16 on ImageNet-1K, on MAE's recipe. No labels enter.
# Cost: MAE's 800 epochs at batch 4,096 on 8 GPUs, with all patches in both levels of a step. Not run yet.
# Run:  bash tools/dist_train.sh configs/learned_mae/adios_vit-base-p16_8xb512-amp-coslr-800e_in1k.py 8
_base_ = ['../mae/mae_vit-base-p16_8xb512-amp-coslr-800e_in1k.py', '../_base_/models/adios.py']

model = dict(**_base_.adios, masker=dict(**_base_.adios_masker, patch_size=16))
player = dict(
    type=_base_.optim_wrapper.type,
    optimizer=_base_.optim_wrapper.optimizer,
    paramwise_cfg=_base_.optim_wrapper.paramwise_cfg)
optim_wrapper = dict(
    _delete_=True,
    constructor='mmmlo.MultiLevelOptimWrapperConstructor',
    levels=dict(pretrain=player, masking=player))
train_cfg = _base_.adios_loop
