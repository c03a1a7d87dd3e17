# MAE whose loss counts patches by their contrast, without labels and without learning, on small objects in scenes.
# Run:  python tools/train.py configs/mae/contrast-mae_vit-nano-p8_1xb128-coslr-300e_camvid-objects.py
_base_ = './mae_vit-nano-p8_1xb128-coslr-300e_camvid-objects.py'

model = dict(
    masker=dict(type='mmmlo.ContrastMasker', patch_size=8), guided_share=0., weighting=dict(type='mmmlo.TopWeights'))
