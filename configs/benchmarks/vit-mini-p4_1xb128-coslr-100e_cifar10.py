# MLO-MAE's recipe for CIFAR-10 on the mini ViT, at this project's batch size; in fp32 unless run with `--amp`.
# Cost: 39,000 steps of 128 images.
# Run:  python tools/train.py configs/benchmarks/vit-mini-p4_1xb128-coslr-100e_cifar10.py --backbone CHECKPOINT
_base_ = [
    '../_base_/benchmarks/models/vit-mini-p4_32px.py',
    '../_base_/benchmarks/datasets/cifar10.py',
    '../_base_/benchmarks/schedules/adamw-coslr-100e.py',
    '../_base_/benchmarks/runtime.py',
]

train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(betas=(0.9, 0.95)))
auto_scale_lr = dict(base_batch_size=128, enable=False)
