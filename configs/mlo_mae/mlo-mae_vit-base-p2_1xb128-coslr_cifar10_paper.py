# MLO-MAE on CIFAR-10 with the paper's contract of splits: D_u and D_tr are the same 80 % of train, D_val is the rest. ViT-B
# with 2 x 2 pixel patches. The paper's learning rates were not found; these are the released code's, with MAE's weight decay
# and fixed positions.
# Cost: 125,200 pretrain, 62,600 finetune and 62,600 masking steps of 128 images; needs a GPU.
# Run:  python tools/train.py configs/mlo_mae/mlo-mae_vit-base-p2_1xb128-coslr_cifar10_paper.py --amp
_base_ = [
    '../_base_/models/mae_vit-base-p2_32px.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/mlo-mae_1xb128-coslr-125k.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='mmmlo.MLOMAE',
    masker=dict(type='mmmlo.MLPMasker', grid=(16, 16), embed_dims=768),
    downstream=dict(type='mmmlo.TokenClsHead', num_classes=10, in_channels=768))

train_cfg = dict(
    dataloaders=dict(finetune=dict(dataset=_base_.finetune_dataset), masking=dict(dataset=_base_.masking_dataset)))
