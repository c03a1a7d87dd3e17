# MLO-MAE, ViT-B/16 on ImageNet-1K, guided by detection of COCO in place of ImageNet's classes. Not run yet.
# Cost: 500,454 pretrain steps of 256 images, 250,227 finetune and 250,227 masking steps of 8; a GPU with 80 GB.
# Run:  python tools/train.py configs/mlo_mae/mlo-mae_vit-base-p16_1xb256-coslr_in1k_coco-guided.py --amp
_base_ = ['./mlo-mae_vit-base-p16_1xb256-coslr_in1k_paper.py', '../_base_/downstream/coco_fpn.py']

model = dict(downstream=dict(_delete_=True, **_base_.coco_task))
# No labels of its own are read, so it sees all of train.
train_dataloader = dict(dataset=dict(_delete_=True, **_base_.train_split))
train_cfg = dict(
    dataloaders=dict(finetune=dict(_delete_=True, **_base_.coco_train), masking=dict(_delete_=True, **_base_.coco_val)))
