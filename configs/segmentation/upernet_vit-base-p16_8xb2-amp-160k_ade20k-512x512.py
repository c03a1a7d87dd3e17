# Segments ADE20K with UPerNet on a pretrained ViT-B/16, the recipe of MAE and of BEiT.
# Cost: 160,000 iterations of 16 crops of 512 x 512 on 8 GPUs.
# Run:  bash tools/dist_train.sh configs/segmentation/upernet_vit-base-p16_8xb2-amp-160k_ade20k-512x512.py 8 \
#           --backbone CHECKPOINT
_base_ = ['mmseg::_base_/models/upernet_mae.py', '../_base_/segmentation/ade20k.py']

crop_size = (512, 512)
norm_cfg = dict(type='SyncBN', requires_grad=True)

# As BEiT and mmseg's MAE: features of four blocks, without the final norm, which only the last of them would have. So the
# checkpoint's ln1 is left. The neck is theirs too: transposed convolutions to strides 4 and 8, a max pool to stride 32.
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',
        arch='base',
        img_size=crop_size,
        patch_size=16,
        drop_path_rate=0.1,
        out_type='featmap',
        out_indices=[3, 5, 7, 11],
        final_norm=False),
    neck=dict(embed_dim=768, norm_cfg=norm_cfg),
    decode_head=dict(in_channels=[768, 768, 768, 768], channels=768, num_classes=150),
    auxiliary_head=dict(in_channels=768, num_classes=150),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(341, 341)))

optim_wrapper = dict(
    type='mmmlo.BFloat16OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='mmmlo.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.65,
        flat_decay_mult=0.,
        custom_keys=dict(cls_token=dict(decay_mult=0.), pos_embed=dict(decay_mult=0.))))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=160000),
]
