# The mini ViT for photographs with CL-MAE's masker: five transformer blocks on the encoder's tokens.
_base_ = './mae_vit-mini-p16_160px.py'

model = dict(type='mmmlo.CLMAE', masker=dict(type='mmmlo.ViTMasker', grid=(10, 10), embed_dims=192))
