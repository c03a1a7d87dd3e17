# MLO-MAE without labels, 192 dims x 6 blocks, on CIFAR-10: in place of a classifier a small decoder, trained on D_tr, fills
# in random masks of D_val, and its loss guides the masker. Ours. Labels are read by kNN alone, which nothing learns from.
# Cost: 15,600 pretrain, 7,800 finetune and 7,800 masking steps.
# Run:  python tools/train.py configs/mlo_mae/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10_reconstruction-guided.py
_base_ = ['./mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py', '../_base_/downstream/reconstruction.py']

model = dict(downstream=dict(_delete_=True, **_base_.reconstruction_task))
