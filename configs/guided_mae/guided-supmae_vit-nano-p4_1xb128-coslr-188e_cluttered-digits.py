# Guided MAE with 0.1 x cross entropy on 64 labelled images a step: labels used directly and through weights.
# Run:  python tools/train.py configs/guided_mae/guided-supmae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py
_base_ = './guided-mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py'

model = dict(
    extra_losses=dict(
        supervised=dict(
            type='mmmlo.SupervisedLoss',
            loss_weight=0.1,
            head=dict(type='mmmlo.TokenClsHead', num_classes=10, in_channels=96))))
train_cfg = dict(dataloaders=dict(labelled=dict(batch_size=64, drop_last=False, dataset=_base_.finetune_dataset)))
