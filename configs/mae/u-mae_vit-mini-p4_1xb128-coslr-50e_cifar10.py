# U-MAE, 192 dims x 6 blocks, on CIFAR-10: MAE with a loss that spreads the class tokens of different images.
# Run:  python tools/train.py configs/mae/u-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py
_base_ = './mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

model = dict(extra_losses=dict(uniformity=dict(type='mmmlo.UniformityLoss')))
