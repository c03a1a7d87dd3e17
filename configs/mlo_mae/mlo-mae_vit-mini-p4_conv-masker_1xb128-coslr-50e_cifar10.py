# MLO-MAE on CIFAR-10 with a convolutional masker, Gumbel noise on its scores and normalized weights: ours, against the MLP
# masker's two habits, one mask for every image and scores that fall until they weight nothing.
# Cost: as mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py.
# Run:  python tools/train.py configs/mlo_mae/mlo-mae_vit-mini-p4_conv-masker_1xb128-coslr-50e_cifar10.py
_base_ = './mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

model = dict(
    masker=dict(_delete_=True, type='mmmlo.ConvMasker', patch_size=4),
    temperature=1.,
    normalize_weights=True)
