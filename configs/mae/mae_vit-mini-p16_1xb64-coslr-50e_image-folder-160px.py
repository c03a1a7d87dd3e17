# MAE, 192 dims x 6 blocks, on a folder of photographs at 160 px: the baseline of the MLO-MAE config of the same name.
# Cost: for 10,000 training images, 6,250 steps.
# Run:  ln -s /path/to/images data/images   (train/<class>/*, test/<class>/*)
#       python tools/train.py configs/mae/mae_vit-mini-p16_1xb64-coslr-50e_image-folder-160px.py
_base_ = [
    '../_base_/models/mae_vit-mini-p16_160px.py',
    '../_base_/datasets/image_folder_160px.py',
    '../_base_/schedules/mae_1xb128-coslr-50e.py',
    '../_base_/default_runtime.py',
]

auto_scale_lr = dict(base_batch_size=64)
