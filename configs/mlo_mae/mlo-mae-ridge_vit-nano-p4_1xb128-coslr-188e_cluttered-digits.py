# MLO-MAE on cluttered digits whose head is solved on D_tr in closed form, with a masker that reads pixels. Masks are random,
# and the scores weight the loss, with mean 1.
# Cost: 1,504 pretrain and 752 masking steps. Needs no download.
# Run:  python tools/train.py configs/mlo_mae/mlo-mae-ridge_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py
_base_ = '../mae/mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py'

model = dict(
    type='mmmlo.MLOMAE',
    masker=dict(type='mmmlo.ConvMasker', patch_size=4),
    guided_share=0.,
    normalize_weights=True,
    downstream=dict(type='mmmlo.RidgeHead', num_classes=10, in_channels=96, bank=1024))

optim_wrapper = dict(
    _delete_=True,
    constructor='mmmlo.MultiLevelOptimWrapperConstructor',
    levels=dict(
        pretrain=dict(
            optimizer=_base_.optim_wrapper.optimizer,
            paramwise_cfg=_base_.optim_wrapper.paramwise_cfg,
            steps=2),
        masking=dict(
            optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
            paths=['pretrain'],
            hypergradient=dict(type='mmmlo.ForwardMode'))))

train_cfg = dict(
    type='mmmlo.MultiLevelTrainLoop',
    dataloaders=dict(
        masking=dict(dataset=_base_.masking_dataset), labelled=dict(batch_size=64, dataset=_base_.finetune_dataset)))
