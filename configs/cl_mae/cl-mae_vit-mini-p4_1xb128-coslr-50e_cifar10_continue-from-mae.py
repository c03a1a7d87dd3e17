# CL-MAE, 192 dims x 6 blocks, on CIFAR-10, continued from this project's MAE of the same size: encoder and decoder are its,
# the masking network is new.
# First:  python tools/train.py configs/mae/mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py
# Cost: 15,600 pretrain and 15,600 masking steps, after MAE's 15,600.
# Run:  python tools/train.py configs/cl_mae/cl-mae_vit-mini-p4_1xb128-coslr-50e_cifar10_continue-from-mae.py
_base_ = './cl-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py'

# A file of another project's: tools/model_converters/convert.py SRC DST --to mmmlo
load_from = 'work_dirs/mae_vit-mini-p4_1xb128-coslr-50e_cifar10/epoch_50.pth'
