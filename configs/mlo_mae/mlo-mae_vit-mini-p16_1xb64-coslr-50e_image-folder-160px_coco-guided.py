# MLO-MAE, 192 dims x 6 blocks, on a folder of photographs at 160 px without labels, guided by detection of COCO.
# Cost: for 10,000 training images 6,250 pretrain steps of 64 images, 3,125 finetune and 3,125 masking steps of 8.
# Run:  ln -s /path/to/images data/images   and  ln -s /path/to/coco data/coco   (see docs/feedback.md), then
#       python tools/train.py configs/mlo_mae/mlo-mae_vit-mini-p16_1xb64-coslr-50e_image-folder-160px_coco-guided.py
_base_ = ['./mlo-mae_vit-mini-p16_1xb64-coslr-50e_image-folder-160px.py', '../_base_/downstream/coco.py']

model = dict(downstream=dict(_delete_=True, **_base_.coco_task))
train_cfg = dict(
    dataloaders=dict(finetune=dict(_delete_=True, **_base_.coco_train), masking=dict(_delete_=True, **_base_.coco_val)))
