# Ablation: MLO-MAE with a convolutional masker, which reads the image and has no weight of its own for each place.
# Cost: 15,600 pretrain, 7,800 finetune and 7,800 masking steps.
# Run:  python tools/train.py configs/mlo_mae/ablations/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10_conv-masker.py
_base_ = '../mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

model = dict(masker=dict(_delete_=True, type='mmmlo.ConvMasker', patch_size=4))
