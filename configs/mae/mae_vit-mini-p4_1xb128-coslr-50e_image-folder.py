# MAE, 192 dims x 6 blocks, on a folder of small images: the baseline of the MLO-MAE config of the same name.
# Cost: for 50,000 training images, 15,600 steps.
# Run:  ln -s /path/to/images data/images   (train/<class>/*, test/<class>/*)
#       python tools/train.py configs/mae/mae_vit-mini-p4_1xb128-coslr-50e_image-folder.py
_base_ = [
    '../_base_/models/mae_vit-mini-p4_32px.py',
    '../_base_/datasets/image_folder_32px.py',
    '../_base_/schedules/mae_1xb128-coslr-50e.py',
    '../_base_/default_runtime.py',
]

# OpenCV reads BGR.
model = dict(data_preprocessor=dict(to_rgb=True))
