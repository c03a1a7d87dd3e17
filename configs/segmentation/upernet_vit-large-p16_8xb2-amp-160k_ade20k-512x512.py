# Segments ADE20K with UPerNet on a pretrained ViT-L/16.
# Cost: 160,000 iterations of 16 crops of 512 x 512 on 8 GPUs.
# Run:  bash tools/dist_train.sh configs/segmentation/upernet_vit-large-p16_8xb2-amp-160k_ade20k-512x512.py 8 \
#           --backbone CHECKPOINT
_base_ = './upernet_vit-base-p16_8xb2-amp-160k_ade20k-512x512.py'

# Blocks and drop path are BEiT-L's. The layer decay is that of MAE's fine-tuning of ViT-L on ImageNet: BEiT's 0.95, with
# lr=2e-5, is for encoders that were fine-tuned with labels before.
model = dict(
    backbone=dict(arch='large', drop_path_rate=0.2, out_indices=[7, 11, 15, 23]),
    neck=dict(embed_dim=1024),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024], channels=1024),
    auxiliary_head=dict(in_channels=1024))

optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.75))
