# MLO-MAE's recipe for CIFAR-100 on the mini ViT, at this project's batch size; in fp32 unless run with `--amp`.
# Cost: 39,000 steps of 128 images.
# Run:  python tools/train.py configs/benchmarks/vit-mini-p4_1xb128-coslr-100e_cifar100.py --backbone CHECKPOINT
_base_ = [
    '../_base_/benchmarks/models/vit-mini-p4_32px.py',
    '../_base_/benchmarks/datasets/cifar100.py',
    '../_base_/benchmarks/schedules/adamw-coslr-100e.py',
    '../_base_/benchmarks/runtime.py',
]

model = dict(head=dict(num_classes=100))
train_dataloader = dict(batch_size=128)
auto_scale_lr = dict(base_batch_size=128, enable=False)
