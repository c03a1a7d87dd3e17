# HPM, ViT-B/16 on ImageNet-1K, on MAE's recipe.
# Cost: 800 epochs of all 1.28 M training images at batch 4,096 on 8 GPUs, with a second decoder in a step.
# Run:  bash tools/dist_train.sh configs/mae/hpm_vit-base-p16_8xb512-amp-coslr-800e_in1k.py 8
_base_ = ['./mae_vit-base-p16_8xb512-amp-coslr-800e_in1k.py', '../_base_/models/hpm.py']

model = dict(
    **_base_.hpm, extra_losses=dict(ranking=dict(type='mmmlo.RankingLoss', predictor=_base_.model.neck)))
custom_hooks = [*_base_.custom_hooks, *_base_.hpm_hooks]
