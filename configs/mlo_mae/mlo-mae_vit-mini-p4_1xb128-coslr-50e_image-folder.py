# MLO-MAE, 192 dims x 6 blocks, on a folder of small images with 10 classes, with an MLP masker and the paper's contract of
# splits.
# Cost: for 50,000 training images 15,600 pretrain, 7,800 finetune and 7,800 masking steps.
# Run:  ln -s /path/to/images data/images   (train/<class>/*, test/<class>/*), then set model.downstream.num_classes
#       python tools/train.py configs/mlo_mae/mlo-mae_vit-mini-p4_1xb128-coslr-50e_image-folder.py
_base_ = [
    '../_base_/models/mlo-mae_vit-mini-p4_32px.py',
    '../_base_/datasets/image_folder_32px.py',
    '../_base_/schedules/mlo-mae_1xb128-coslr-50e.py',
    '../_base_/default_runtime.py',
]

train_cfg = dict(
    dataloaders=dict(finetune=dict(dataset=_base_.finetune_dataset), masking=dict(dataset=_base_.masking_dataset)))

# OpenCV reads BGR.
model = dict(data_preprocessor=dict(to_rgb=True))
