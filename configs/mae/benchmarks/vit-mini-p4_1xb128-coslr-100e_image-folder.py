# Fine-tunes MAE's mini ViT on a folder of small images with 10 classes, by MLO-MAE's recipe.
# Cost: for 50,000 training images, 39,000 steps of 128.
# Run:  ln -s /path/to/images data/images   (train/<class>/*, test/<class>/*), then set model.head.num_classes
#       python tools/train.py configs/mae/benchmarks/vit-mini-p4_1xb128-coslr-100e_image-folder.py \
#           --backbone CHECKPOINT
_base_ = '../../_base_/benchmarks/vit-mini-p4_1xb128-coslr-100e_image-folder.py'

work_dir = 'work_dirs/mae_vit-mini-p4_1xb128-coslr-100e_image-folder'
