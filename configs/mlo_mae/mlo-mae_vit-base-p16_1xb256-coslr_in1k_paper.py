# MLO-MAE, ViT-B/16 on ImageNet-1K with the paper's contract of splits: D_u and D_tr are the same 80 % of train, D_val the
# other 20 %; the official validation set is left for testing. The paper's learning rates were not found; these are the
# released code's, with MAE's weight decay and fixed positions.
# Cost: 500,454 pretrain, 250,227 finetune and 250,227 masking steps of 256 images; a GPU with 80 GB.
# Run:  python tools/train.py configs/mlo_mae/mlo-mae_vit-base-p16_1xb256-coslr_in1k_paper.py --amp
_base_ = [
    '../_base_/models/mae_vit-base-p16_224px.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/mlo-mae_1xb128-coslr-125k.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='mmmlo.MLOMAE',
    masker=dict(type='mmmlo.MLPMasker', grid=(14, 14), embed_dims=768),
    downstream=dict(type='mmmlo.TokenClsHead', num_classes=1000, in_channels=768))

# The released code trains on two GPUs with 128 images each.
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(
    levels=dict(
        pretrain=dict(optimizer=dict(lr=1.5e-4)),
        finetune=dict(optimizer=dict(lr=5e-4)),
        masking=dict(optimizer=dict(lr=5e-5))))
train_cfg = dict(
    max_iters=500454,
    val_interval=10,
    dataloaders=dict(finetune=dict(dataset=_base_.finetune_dataset), masking=dict(dataset=_base_.masking_dataset)))
auto_scale_lr = dict(base_batch_size=256)
