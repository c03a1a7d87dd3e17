# MAE, ViT-B/16 on ImageNet-1K: MAE's own recipe on this project's modules.
# Cost: 800 epochs of all 1.28 M training images at batch 4,096 on 8 GPUs.
# Run:  bash tools/dist_train.sh configs/mae/mae_vit-base-p16_8xb512-amp-coslr-800e_in1k.py 8
_base_ = [
    '../_base_/models/mae_vit-base-p16_224px.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/mae_8xb512-amp-coslr-800e.py',
    '../_base_/default_runtime.py',
]

# No labels enter MAE, so it sees all of train.
train_dataloader = dict(batch_size=512, dataset=dict(_delete_=True, **_base_.train_split))
