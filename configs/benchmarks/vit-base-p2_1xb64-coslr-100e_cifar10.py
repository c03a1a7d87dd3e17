# MLO-MAE's released fine-tuning of ViT-B/2 on CIFAR-10.
# Cost: 78,100 steps of 64 images; needs a GPU.
# Run:  python tools/train.py configs/benchmarks/vit-base-p2_1xb64-coslr-100e_cifar10.py --backbone CHECKPOINT
_base_ = [
    '../_base_/benchmarks/models/vit-base-p2_32px.py',
    '../_base_/benchmarks/datasets/cifar10.py',
    '../_base_/benchmarks/schedules/adamw-coslr-100e.py',
    '../_base_/benchmarks/runtime.py',
]

train_dataloader = dict(batch_size=64)
optim_wrapper = dict(type='mmmlo.BFloat16OptimWrapper', optimizer=dict(betas=(0.9, 0.95)))
auto_scale_lr = dict(base_batch_size=64, enable=False)
