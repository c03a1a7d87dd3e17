# MLO-MAE's recipe for CIFAR-100 on the mini ViT, at this project's batch size; in fp32 unless run with `--amp`.
_base_ = [
    './models/vit-mini-p4_32px.py',
    './datasets/cifar100.py',
    './schedules/adamw-coslr-100e.py',
    './runtime.py',
]

model = dict(head=dict(num_classes=100))
train_dataloader = dict(batch_size=128)
auto_scale_lr = dict(base_batch_size=128, enable=False)
