# SupMAE, 192 dims x 6 blocks, on CIFAR-10: MAE with a cross entropy on the mean of the visible patches' features.
# Run:  python tools/train.py configs/mae/supmae_vit-mini-p4_1xb128-coslr-50e_cifar10.py
_base_ = './mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

model = dict(
    extra_losses=dict(
        supervised=dict(
            type='mmmlo.SupervisedLoss',
            head=dict(type='mmmlo.TokenClsHead', num_classes=10, in_channels=192, token='mean'))))
