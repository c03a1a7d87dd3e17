# Feedback without labels, for patches of 4 x 4 pixels of the mini ViT: `reconstruction_task` is for model.downstream.
reconstruction_task = dict(
    type='mmmlo.ReconstructionTask',
    decoder=dict(
        type='mmmlo.GridMAEDecoder',
        grid=(8, 8),
        patch_size=4,
        embed_dim=192,
        decoder_embed_dim=96,
        decoder_depth=1,
        decoder_num_heads=3),
    head=dict(type='mmmlo.MaskedPixelHead', norm_pix=True, patch_size=4))
