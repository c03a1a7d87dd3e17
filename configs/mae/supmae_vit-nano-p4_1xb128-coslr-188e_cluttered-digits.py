# MAE + 0.1 x cross entropy on 64 labelled images a step, on cluttered digits: labels used directly, the control of methods
# that use them through masks. With D=train_cfg.dataloaders.labelled.dataset.dataset, fewer labels, 4 of 5 of the first 63
# images: --cfg-options $D.indices=63; other ones: --cfg-options $D.target=parity
# model.extra_losses.supervised.head.num_classes=2.
# Cost: 1,504 steps, about six minutes on two CPU cores. Needs no download.
# Run:  python tools/train.py configs/mae/supmae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py
_base_ = './mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py'

model = dict(
    extra_losses=dict(
        supervised=dict(
            type='mmmlo.SupervisedLoss',
            loss_weight=0.1,
            head=dict(type='mmmlo.TokenClsHead', num_classes=10, in_channels=96))))

optim_wrapper = dict(
    _delete_=True,
    constructor='mmmlo.MultiLevelOptimWrapperConstructor',
    levels=dict(
        pretrain=dict(
            optimizer=_base_.optim_wrapper.optimizer, paramwise_cfg=_base_.optim_wrapper.paramwise_cfg)))

train_cfg = dict(
    type='mmmlo.MultiLevelTrainLoop',
    dataloaders=dict(labelled=dict(batch_size=64, drop_last=False, dataset=_base_.finetune_dataset)))
