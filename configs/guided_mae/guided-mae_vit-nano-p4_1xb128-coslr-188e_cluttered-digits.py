# MAE beside which a masker learns from labels where to look, on cluttered digits: masks are random, and the loss counts
# the best patches more.
# Cost: 1,504 pretrain and 6,016 masking steps, about five minutes on two CPU cores. Needs no download.
# Run:  python tools/train.py configs/guided_mae/guided-mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py
_base_ = ['../mae/mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py', '../_base_/models/guided.py']

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

# In steps of each level: the masker, of four a cycle, has learned what it learns after a quarter of the run.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=96),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=96, end=1504, T_max=1408),
]

train_cfg = dict(
    type='mmmlo.MultiLevelTrainLoop',
    dataloaders=dict(masking=dict(batch_size=64, dataset=_base_.finetune_dataset)))
