# CL-MAE, 96 dims x 4 blocks, on scikit-learn's digits.
# Cost: 340 pretrain and 340 masking steps, a few minutes on two CPU cores. Needs no download.
# Run:  python tools/train.py configs/cl_mae/cl-mae_vit-nano-p4_1xb64-coslr-20e_digits.py
_base_ = '../mae/mae_vit-nano-p4_1xb64-coslr-20e_digits.py'

model = dict(type='mmmlo.CLMAE', masker=dict(type='mmmlo.ViTMasker', grid=(8, 8), embed_dims=96))

optimizer = dict(
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.))
optim_wrapper = dict(
    _delete_=True,
    constructor='mmmlo.MultiLevelOptimWrapperConstructor',
    levels=dict(pretrain=optimizer, masking=optimizer))
train_cfg = dict(
    _delete_=True,
    type='mmmlo.MultiLevelTrainLoop',
    max_epochs=20,
    val_interval=5,
    dataloaders=dict(masking='pretrain'))
custom_hooks = [dict(type='mmmlo.MaskStatisticsHook', interval=17), dict(type='mmmlo.CurriculumHook')]
