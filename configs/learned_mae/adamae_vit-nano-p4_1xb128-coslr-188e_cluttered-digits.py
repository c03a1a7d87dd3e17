# AdaMAE, 96 dims x 4 blocks, on cluttered digits. No labels enter.
# Cost: 1,504 steps. Needs no download.
# Run:  python tools/train.py configs/learned_mae/adamae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py
_base_ = ['../mae/mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py', '../_base_/models/adamae.py']

model = dict(**_base_.adamae, masker=dict(**_base_.adamae_masker, embed_dims=96))
