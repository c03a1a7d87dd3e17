# ViT-B with patches of 2 x 2 pixels, 256 of them: what MLO-MAE trains on CIFAR.
_base_ = './mae_vit-nano-p4_32px.py'

model = dict(
    # CIFAR's mean and deviation, as the released MLO-MAE has them.
    data_preprocessor=dict(mean=[125.307, 122.950, 113.865], std=[62.985, 62.094, 66.705]),
    backbone=dict(_delete_=True, type='mmmlo.MaskedViT', arch='base', img_size=32, patch_size=2,
                  init_cfg=[dict(type='Xavier', layer='Linear', distribution='uniform')]),
    neck=dict(grid=(16, 16), patch_size=2, embed_dim=768, decoder_embed_dim=512, decoder_depth=8, decoder_num_heads=16),
    head=dict(patch_size=2))
