# MAE whose loss counts patches by their contrast, without labels and without learning, on cluttered digits.
# Run:  python tools/train.py configs/mae/contrast-mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py
_base_ = './mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py'

model = dict(
    masker=dict(type='mmmlo.ContrastMasker', patch_size=4), guided_share=0., weighting=dict(type='mmmlo.TopWeights'))
