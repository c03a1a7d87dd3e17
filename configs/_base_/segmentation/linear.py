# A linear layer on the last feature map of a frozen ViT; a config sets the ViT's size, and with it `frozen_stages`, all of
# its blocks: then embeddings and final norm are frozen too. There is no dropout, so the features are those of evaluation.
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255),
    backbone=dict(type='mmpretrain.VisionTransformer', patch_size=16, out_type='featmap'),
    decode_head=dict(type='mmmlo.LinearSegHead'))
