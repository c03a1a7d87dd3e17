# MLO-MAE's recipe for CIFAR-10 on the mini ViT, at this project's batch size; in fp32 unless run with `--amp`.
_base_ = [
    './models/vit-mini-p4_32px.py',
    './datasets/cifar10.py',
    './schedules/adamw-coslr-100e.py',
    './runtime.py',
]

train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(betas=(0.9, 0.95)))
auto_scale_lr = dict(base_batch_size=128, enable=False)
