# CL-MAE, 192 dims x 6 blocks, on a folder of photographs at 160 px.
# Cost: for 10,000 training images 6,250 pretrain and 6,250 masking steps.
# Run:  ln -s /path/to/images data/images   (train/<class>/*, test/<class>/*)
#       python tools/train.py configs/cl_mae/cl-mae_vit-mini-p16_1xb64-coslr-50e_image-folder-160px.py
_base_ = [
    '../_base_/models/cl-mae_vit-mini-p16_160px.py',
    '../_base_/datasets/image_folder_160px.py',
    '../_base_/schedules/cl-mae_1xb128-coslr-50e.py',
    '../_base_/default_runtime.py',
]

auto_scale_lr = dict(base_batch_size=64)
custom_hooks = [dict(type='mmmlo.MaskStatisticsHook', interval=50), dict(type='mmmlo.CurriculumHook')]
