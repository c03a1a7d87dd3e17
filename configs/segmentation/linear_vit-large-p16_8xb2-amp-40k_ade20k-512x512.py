# Segments ADE20K with a linear layer on the frozen ViT-L/16: a quick comparison of encoders.
# Cost: 40,000 iterations of 16 crops of 512 x 512 on 8 GPUs, without a backward pass through the encoder.
# Run:  bash tools/dist_train.sh configs/segmentation/linear_vit-large-p16_8xb2-amp-40k_ade20k-512x512.py 8 \
#           --backbone CHECKPOINT
_base_ = './linear_vit-base-p16_8xb2-amp-40k_ade20k-512x512.py'

model = dict(backbone=dict(arch='large', frozen_stages=24), decode_head=dict(in_channels=1024))
