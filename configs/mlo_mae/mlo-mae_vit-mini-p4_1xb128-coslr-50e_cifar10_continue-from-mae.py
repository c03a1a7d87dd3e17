# MLO-MAE, 192 dims x 6 blocks, on CIFAR-10, continued from this project's MAE of the same size: encoder and decoder are its,
# the masking network and the head are new.
# First:  python tools/train.py configs/mae/mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py
# Cost: 15,600 pretrain, 7,800 finetune and 7,800 masking steps, after MAE's 15,600.
# Run:  python tools/train.py configs/mlo_mae/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10_continue-from-mae.py
_base_ = './mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

# A file of another project's: tools/model_converters/convert.py SRC DST --to mmmlo
load_from = 'work_dirs/mae_vit-mini-p4_1xb128-coslr-50e_cifar10/epoch_50.pth'
