# CL-MAE, 192 dims x 6 blocks, on a folder of small images.
# Cost: for 50,000 training images 15,600 pretrain and 15,600 masking steps.
# Run:  ln -s /path/to/images data/images   (train/<class>/*, test/<class>/*)
#       python tools/train.py configs/cl_mae/cl-mae_vit-mini-p4_1xb128-coslr-50e_image-folder.py
_base_ = [
    '../_base_/models/cl-mae_vit-mini-p4_32px.py',
    '../_base_/datasets/image_folder_32px.py',
    '../_base_/schedules/cl-mae_1xb128-coslr-50e.py',
    '../_base_/default_runtime.py',
]

# OpenCV reads BGR.
model = dict(data_preprocessor=dict(to_rgb=True))

custom_hooks = [dict(type='mmmlo.MaskStatisticsHook', interval=50), dict(type='mmmlo.CurriculumHook')]
