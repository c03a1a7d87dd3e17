# The mini ViT for photographs with MLO-MAE's masker (two linear layers over all patches) and a head for 10 classes.
_base_ = './mae_vit-mini-p16_160px.py'

model = dict(
    type='mmmlo.MLOMAE',
    masker=dict(type='mmmlo.MLPMasker', grid=(10, 10), embed_dims=192),
    downstream=dict(type='mmmlo.TokenClsHead', num_classes=10, in_channels=192))
