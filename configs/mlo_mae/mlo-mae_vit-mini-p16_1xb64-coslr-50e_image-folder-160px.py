# MLO-MAE, 192 dims x 6 blocks, on a folder of photographs at 160 px with 10 classes, with an MLP masker and the paper's
# contract of splits.
# Cost: for 10,000 training images 6,250 pretrain, 3,125 finetune and 3,125 masking steps.
# Run:  ln -s /path/to/images data/images   (train/<class>/*, test/<class>/*), then set model.downstream.num_classes
#       python tools/train.py configs/mlo_mae/mlo-mae_vit-mini-p16_1xb64-coslr-50e_image-folder-160px.py
_base_ = [
    '../_base_/models/mlo-mae_vit-mini-p16_160px.py',
    '../_base_/datasets/image_folder_160px.py',
    '../_base_/schedules/mlo-mae_1xb128-coslr-50e.py',
    '../_base_/default_runtime.py',
]

train_cfg = dict(
    dataloaders=dict(finetune=dict(dataset=_base_.finetune_dataset), masking=dict(dataset=_base_.masking_dataset)))
auto_scale_lr = dict(base_batch_size=64)
