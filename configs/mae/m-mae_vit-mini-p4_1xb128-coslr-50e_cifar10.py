# M-MAE, 192 dims x 6 blocks, on CIFAR-10: MAE with a loss that raises the coding rate of the class tokens.
# Run:  python tools/train.py configs/mae/m-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py
_base_ = './mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

model = dict(extra_losses=dict(log_det=dict(type='mmmlo.LogDetLoss')))
