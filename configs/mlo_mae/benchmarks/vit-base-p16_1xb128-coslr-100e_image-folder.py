# Fine-tunes MLO-MAE's ViT-B/16 on a folder of photographs, by MAE's recipe.
# Cost: for 10,000 training images, 7,800 steps of 128.
# Run:  ln -s /path/to/images data/images   (train/<class>/*, test/<class>/*); with other than 10 classes, say how many
#       python tools/train.py configs/mlo_mae/benchmarks/vit-base-p16_1xb128-coslr-100e_image-folder.py \
#           --backbone CHECKPOINT --cfg-options model.head.num_classes=7 model.data_preprocessor.num_classes=7
_base_ = '../../_base_/benchmarks/vit-base-p16_1xb128-coslr-100e_image-folder.py'

work_dir = 'work_dirs/mlo-mae_vit-base-p16_1xb128-coslr-100e_image-folder'
