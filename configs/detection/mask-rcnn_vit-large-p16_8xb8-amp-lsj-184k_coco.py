# Detects and segments COCO's objects with Mask R-CNN on a pretrained ViT-L/16, by ViTDet's recipe.
# Cost: 184,375 iterations of 64 crops of 1024 x 1024 on 8 GPUs; activations are computed twice to fit.
# Run:  bash tools/dist_train.sh configs/detection/mask-rcnn_vit-large-p16_8xb8-amp-lsj-184k_coco.py 8 --backbone CHECKPOINT
_base_ = './mask-rcnn_vit-base-p16_8xb8-amp-lsj-184k_coco.py'

model = dict(backbone=dict(arch='large', drop_path_rate=0.4, with_cp=True), neck=dict(in_channels=1024))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
