# MLO-MAE's released fine-tuning of ViT-B/2 on CIFAR-100: no Cutout, and other betas than on CIFAR-10.
# Cost: 19,500 steps of 256 images; needs a GPU.
# Run:  python tools/train.py configs/benchmarks/vit-base-p2_1xb256-coslr-100e_cifar100.py --backbone CHECKPOINT
_base_ = [
    '../_base_/benchmarks/models/vit-base-p2_32px.py',
    '../_base_/benchmarks/datasets/cifar100.py',
    '../_base_/benchmarks/schedules/adamw-coslr-100e.py',
    '../_base_/benchmarks/runtime.py',
]

model = dict(head=dict(num_classes=100))
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(type='mmmlo.BFloat16OptimWrapper')
auto_scale_lr = dict(base_batch_size=256, enable=False)
