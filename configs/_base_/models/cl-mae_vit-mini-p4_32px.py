# The mini ViT with CL-MAE's masker: five transformer blocks on the encoder's tokens.
_base_ = './mae_vit-mini-p4_32px.py'

model = dict(type='mmmlo.CLMAE', masker=dict(type='mmmlo.ViTMasker', grid=(8, 8), embed_dims=192))
