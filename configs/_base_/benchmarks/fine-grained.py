# MAE's fine-tuning of ViT-B/16 on small and fine-grained sets; the configs of the sets add images and number of classes.
# MLO-MAE reports three of them, but its settings were not found, and its released code has none. MAE fine-tunes on
# iNaturalist as on ImageNet, but for learning rate and epochs, which it adjusts without saying to what (He et al., 2022,
# A.5). Here both are ImageNet's on every set.
_base_ = '../../benchmarks/vit-base-p16_8xb128-coslr-100e_in1k.py'

train_dataloader = dict(dataset=dict(_delete_=True, pipeline=_base_.train_pipeline))
# As on ImageNet, the test split is measured once, after the last epoch, and that is the result.
val_dataloader = dict(dataset=dict(_delete_=True, pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader

# lr is 5e-4 per 256 images, on one GPU. On several, `--auto-scale-lr` keeps it so.
optim_wrapper = dict(optimizer=dict(lr=5e-4 * 128 / 256))
auto_scale_lr = dict(base_batch_size=128)
# An epoch can be as short as 15 iterations, and a checkpoint has 1 GB.
default_hooks = dict(checkpoint=dict(interval=10))
