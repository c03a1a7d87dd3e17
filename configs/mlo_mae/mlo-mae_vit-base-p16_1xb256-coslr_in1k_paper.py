# MLO-MAE, ViT-B/16 on ImageNet-1K with the paper's contract of splits: D_u and D_tr are the same 80 % of train, D_val the
# other 20 %; the official validation set is left for testing. The paper's learning rates were not found; these are the
# released code's, with MAE's weight decay and fixed positions.
# Cost: 500,454 pretrain, 250,227 finetune and 250,227 masking steps of 256 images; a GPU with 80 GB.
# Run:  python tools/train.py configs/mlo_mae/mlo-mae_vit-base-p16_1xb256-coslr_in1k_paper.py --amp
_base_ = [
    '../_base_/models/mae_vit-base-p16_224px.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='mmmlo.MLOMAE',
    masker=dict(type='mmmlo.MLPMasker', grid=(14, 14), embed_dims=768),
    downstream=dict(type='mmmlo.TokenClsHead', num_classes=1000, in_channels=768))

# The released code trains on two GPUs with 128 images each.
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(
    constructor='mmmlo.MultiLevelOptimWrapperConstructor',
    levels=dict(
        pretrain=dict(
            optimizer=dict(type='AdamW', lr=1.5e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
            paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.),
            steps=2),
        finetune=dict(optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)),
        masking=dict(
            optimizer=dict(type='AdamW', lr=5e-5, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
            paths=['pretrain', 'finetune>pretrain'],
            hypergradient=dict(type='mmmlo.ForwardMode'))))
# Every level's cosine ends with its own last step.
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False)]

train_cfg = dict(
    type='mmmlo.MultiLevelTrainLoop',
    max_iters=500454,
    val_interval=10,
    dataloaders=dict(
        finetune=dict(dataset=_base_.finetune_dataset),
        masking=dict(dataset=_base_.masking_dataset)))
auto_scale_lr = dict(base_batch_size=256, enable=False)
