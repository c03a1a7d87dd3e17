# MLO-MAE, 96 dims x 4 blocks, on scikit-learn's digits.
# Cost: 340 pretrain, 170 finetune and 170 masking steps, under two minutes on two CPU cores. Needs no download.
# Run:  python tools/train.py configs/mlo_mae/mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py
_base_ = '../mae/mae_vit-nano-p4_1xb64-coslr-20e_digits.py'

model = dict(
    type='mmmlo.MLOMAE',
    masker=dict(type='mmmlo.MLPMasker', grid=(8, 8), embed_dims=96),
    downstream=dict(type='mmmlo.TokenClsHead', num_classes=10, in_channels=96))

optim_wrapper = dict(
    _delete_=True,
    constructor='mmmlo.MultiLevelOptimWrapperConstructor',
    levels=dict(
        pretrain=dict(
            optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
            paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.),
            steps=2),
        finetune=dict(optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True)),
        masking=dict(
            optimizer=dict(type='AdamW', lr=5e-5, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
            paths=['pretrain', 'finetune>pretrain'],
            hypergradient=dict(type='mmmlo.ForwardMode'))))

train_cfg = dict(
    _delete_=True,
    type='mmmlo.MultiLevelTrainLoop',
    max_epochs=20,
    val_interval=5,
    dataloaders=dict(finetune=dict(dataset=_base_.finetune_dataset), masking=dict(dataset=_base_.masking_dataset)))
