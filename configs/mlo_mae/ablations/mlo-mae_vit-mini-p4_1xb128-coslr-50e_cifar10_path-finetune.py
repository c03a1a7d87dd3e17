# Ablation: MLO-MAE whose masker follows the validation loss through the head's answer to the encoder alone.
# Cost: 15,600 pretrain, 7,800 finetune and 7,800 masking steps.
# Run:  python tools/train.py configs/mlo_mae/ablations/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10_path-finetune.py
_base_ = '../mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

optim_wrapper = dict(levels=dict(masking=dict(paths=['finetune>pretrain'])))
