# Ablation: random masks in an otherwise equal run: the masking level has nothing to learn and is left out.
# Cost: 15,600 pretrain and 7,800 finetune steps.
# Run:  python tools/train.py configs/mlo_mae/ablations/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10_random-masker.py
_base_ = '../mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

model = dict(masker=dict(_delete_=True, type='mmmlo.RandomMasker'))
optim_wrapper = dict(
    levels=dict(
        _delete_=True,
        pretrain=_base_.optim_wrapper.levels.pretrain,
        finetune=_base_.optim_wrapper.levels.finetune))
train_cfg = dict(dataloaders=dict(_delete_=True, finetune=dict(dataset=_base_.finetune_dataset)))
