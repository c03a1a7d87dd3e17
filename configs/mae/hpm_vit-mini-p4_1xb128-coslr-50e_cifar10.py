# HPM on CIFAR-10: MAE that masks, more and more of them, the patches of which a moving average of it predicts the
# largest loss, and learns to predict that.
# Run:  python tools/train.py configs/mae/hpm_vit-mini-p4_1xb128-coslr-50e_cifar10.py
_base_ = ['./mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py', '../_base_/models/hpm.py']

model = dict(
    **_base_.hpm, extra_losses=dict(ranking=dict(type='mmmlo.RankingLoss', predictor=_base_.model.neck)))
custom_hooks = [*_base_.custom_hooks, *_base_.hpm_hooks]
