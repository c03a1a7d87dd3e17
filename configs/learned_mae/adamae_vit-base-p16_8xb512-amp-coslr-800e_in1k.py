# AdaMAE, ViT-B/16 on ImageNet-1K, on MAE's recipe. No labels enter.
# Cost: MAE's 800 epochs at batch 4,096 on 8 GPUs, with one more block on all patches in a step. Not run yet.
# Run:  bash tools/dist_train.sh configs/learned_mae/adamae_vit-base-p16_8xb512-amp-coslr-800e_in1k.py 8
_base_ = ['../mae/mae_vit-base-p16_8xb512-amp-coslr-800e_in1k.py', '../_base_/models/adamae.py']

model = dict(**_base_.adamae, masker=dict(**_base_.adamae_masker, embed_dims=768))
