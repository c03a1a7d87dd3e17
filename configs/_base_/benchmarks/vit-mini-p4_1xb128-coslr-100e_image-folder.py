# The recipe for CIFAR-100 on a folder of small images with 10 classes; in fp32 unless run with `--amp`.
_base_ = [
    './models/vit-mini-p4_32px.py',
    './datasets/image_folder_32px.py',
    './schedules/adamw-coslr-100e.py',
    './runtime.py',
]

# OpenCV reads BGR.
model = dict(data_preprocessor=dict(to_rgb=True))
train_dataloader = dict(batch_size=128)
auto_scale_lr = dict(base_batch_size=128, enable=False)
