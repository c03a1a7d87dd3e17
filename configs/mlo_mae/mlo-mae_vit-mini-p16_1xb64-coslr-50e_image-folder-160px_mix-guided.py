# MLO-MAE, 192 dims x 6 blocks, on a folder of photographs at 160 px with 10 classes, guided by their classes and by
# segmentation of CamVid at once.
# Cost: for 10,000 training images 6,250 pretrain, 3,125 finetune and 3,125 masking steps.
# Run:  ln -s /path/to/images data/images   and  ln -s /path/to/camvid data/camvid   (see docs/feedback.md), then
#       python tools/train.py configs/mlo_mae/mlo-mae_vit-mini-p16_1xb64-coslr-50e_image-folder-160px_mix-guided.py
_base_ = ['./mlo-mae_vit-mini-p16_1xb64-coslr-50e_image-folder-160px.py', '../_base_/downstream/camvid.py']

model = dict(
    downstream=dict(
        _delete_=True,
        type='mmmlo.TaskMix',
        tasks=dict(classification=_base_.model.downstream, segmentation=_base_.camvid_task)))
train_cfg = dict(
    dataloaders=dict(
        finetune=dict(
            _delete_=True,
            tasks=dict(classification=dict(dataset=_base_.finetune_dataset), segmentation=_base_.camvid_train)),
        masking=dict(
            _delete_=True,
            tasks=dict(classification=dict(dataset=_base_.masking_dataset), segmentation=_base_.camvid_val))))
