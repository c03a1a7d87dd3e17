# AdaMAE, 192 dims x 6 blocks, on a folder of small images. No labels enter.
# Cost: for 50,000 training images 15,600 steps.
# Run:  ln -s /path/to/images data/images   (train/<class>/*, test/<class>/*)
#       python tools/train.py configs/learned_mae/adamae_vit-mini-p4_1xb128-coslr-50e_image-folder.py
_base_ = ['../mae/mae_vit-mini-p4_1xb128-coslr-50e_image-folder.py', '../_base_/models/adamae.py']

model = dict(**_base_.adamae, masker=dict(**_base_.adamae_masker, embed_dims=192))
