# Detects and segments COCO's objects with Mask R-CNN on a pretrained ViT-B/16, by ViTDet's recipe.
# Cost: 184,375 iterations of 64 crops of 1024 x 1024 on 8 GPUs.
# Run:  bash tools/dist_train.sh configs/detection/mask-rcnn_vit-base-p16_8xb8-amp-lsj-184k_coco.py 8 --backbone CHECKPOINT
_base_ = [
    '../_base_/detection/mask-rcnn_vitdet.py',
    '../_base_/detection/coco_lsj_1024px.py',
    '../_base_/detection/adamw-184k.py',
    '../_base_/detection/runtime.py',
]
