# The recipe for CIFAR-100 on a folder of small images with 10 classes; in fp32 unless run with `--amp`.
# Cost: for 50,000 training images, 39,000 steps of 128.
# Run:  ln -s /path/to/images data/images   (train/<class>/*, test/<class>/*), then set model.head.num_classes
#       python tools/train.py configs/benchmarks/vit-mini-p4_1xb128-coslr-100e_image-folder.py --backbone CHECKPOINT
_base_ = [
    '../_base_/benchmarks/models/vit-mini-p4_32px.py',
    '../_base_/benchmarks/datasets/image_folder_32px.py',
    '../_base_/benchmarks/schedules/adamw-coslr-100e.py',
    '../_base_/benchmarks/runtime.py',
]

# OpenCV reads BGR.
model = dict(data_preprocessor=dict(to_rgb=True))
train_dataloader = dict(batch_size=128)
auto_scale_lr = dict(base_batch_size=128, enable=False)
