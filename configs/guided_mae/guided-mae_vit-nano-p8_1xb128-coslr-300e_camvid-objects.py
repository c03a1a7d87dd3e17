# MAE beside which a masker learns from labels where to look, on small objects in scenes: masks are random, and the loss
# counts the best patches more.
# Cost: 1,500 pretrain and 1,500 masking steps, about five minutes on two CPU cores. Needs CamVid in data/camvid.
# Run:  python tools/train.py configs/guided_mae/guided-mae_vit-nano-p8_1xb128-coslr-300e_camvid-objects.py
_base_ = '../mae/mae_vit-nano-p8_1xb128-coslr-300e_camvid-objects.py'

model = dict(
    type='mmmlo.GuidedMAE',
    masker=dict(
        type='mmmlo.AttentionMasker',
        patch_size=8,
        dims=96,
        head=dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=96)),
    guided_share=0.,
    weighting=dict(type='mmmlo.TopWeights'))

optim_wrapper = dict(
    _delete_=True,
    constructor='mmmlo.MultiLevelOptimWrapperConstructor',
    levels=dict(
        pretrain=dict(
            optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
            paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.)),
        masking=dict(optimizer=dict(type='AdamW', lr=1e-2, betas=(0.9, 0.95), weight_decay=0.05, fused=True))))

train_cfg = dict(
    _delete_=True,
    type='mmmlo.MultiLevelTrainLoop',
    max_epochs=300,
    val_interval=50,
    dataloaders=dict(masking=dict(batch_size=64, dataset=_base_.finetune_dataset)))
