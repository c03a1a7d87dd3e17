# Ablation: MLO-MAE with CL-MAE's masker, five transformer blocks on the encoder's patch embeddings.
# Cost: 15,600 pretrain, 7,800 finetune and 7,800 masking steps.
# Run:  python tools/train.py configs/mlo_mae/ablations/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10_vit-masker.py
_base_ = '../mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

model = dict(masker=dict(type='mmmlo.ViTMasker'))
