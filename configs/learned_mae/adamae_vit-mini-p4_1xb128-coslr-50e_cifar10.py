# AdaMAE, 192 dims x 6 blocks, on CIFAR-10. No labels enter.
# Cost: 15,600 steps on 40,000 images.
# Run:  python tools/train.py configs/learned_mae/adamae_vit-mini-p4_1xb128-coslr-50e_cifar10.py
_base_ = ['../mae/mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py', '../_base_/models/adamae.py']

model = dict(**_base_.adamae, masker=dict(**_base_.adamae_masker, embed_dims=192))
