# CL-MAE on CIFAR-10, ViT-B with 2 x 2 pixel patches: ours, with the released code's 200 epochs, warm-up and curriculum.
# Cost: 62,400 pretrain and 62,400 masking steps of 128 images; needs a GPU.
# Run:  python tools/train.py configs/cl_mae/cl-mae_vit-base-p2_1xb128-coslr-200e_cifar10.py --amp
_base_ = [
    '../_base_/models/mae_vit-base-p2_32px.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/cl-mae_1xb256-coslr-200e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='mmmlo.CLMAE', masker=dict(type='mmmlo.ViTMasker', grid=(16, 16), embed_dims=768))
# 1e-3 per 256 images.
optim_wrapper = dict(levels=dict(pretrain=dict(optimizer=dict(lr=5e-4)), masking=dict(optimizer=dict(lr=5e-4))))
auto_scale_lr = dict(base_batch_size=128)

custom_hooks = [dict(type='mmmlo.MaskStatisticsHook', interval=50), dict(type='mmmlo.CurriculumHook')]
