# MLO-MAE with two levels in place of three, on CIFAR-10: encoder, decoder and head are trained together by
# L_pretrain + 1.0 * L_finetune, and the masker through them. This is our reading of the paper's ablation BLO-MAE, whose
# exact form was not found. The lower level learns labels, so its images are D_tr, and D_val must be apart from them.
# Cost: 15,600 pretrain and 7,800 masking steps.
# Run:  python tools/train.py configs/mlo_mae/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10_bilevel.py
_base_ = './mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

model = dict(bilevel=1.0)
optim_wrapper = dict(
    levels=dict(
        _delete_=True,
        pretrain=_base_.optim_wrapper.levels.pretrain,
        masking=dict(
            optimizer=_base_.optim_wrapper.levels.masking.optimizer,
            paths=['pretrain'],
            hypergradient=dict(type='mmmlo.ForwardMode'))))
train_cfg = dict(dataloaders=dict(_delete_=True, masking=dict(dataset=_base_.masking_dataset)))
