# 96 dims x 4 blocks, 64 patches of 4 x 4 pixels: for digits, within minutes.
model = dict(
    type='mmmlo.MAE',
    data_preprocessor=dict(
        type='mmmlo.DeviceDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, to_rgb=False,
        non_blocking=True),  # loaders pin their memory, so a batch need not wait for the device
    backbone=dict(
        type='mmmlo.MaskedViT',
        arch=dict(embed_dims=96, num_layers=4, num_heads=3, feedforward_channels=384),
        img_size=32,
        patch_size=4,
        init_cfg=[dict(type='Xavier', layer='Linear', distribution='uniform')]),
    neck=dict(
        type='mmmlo.GridMAEDecoder',
        grid=(8, 8),
        patch_size=4,
        embed_dim=96,
        decoder_embed_dim=64,
        decoder_depth=2,
        decoder_num_heads=2,
        init_cfg=[dict(type='Xavier', layer='Linear', distribution='uniform')]),
    head=dict(type='mmmlo.MaskedPixelHead', norm_pix=True, patch_size=4),
    mask_ratio=0.75)
