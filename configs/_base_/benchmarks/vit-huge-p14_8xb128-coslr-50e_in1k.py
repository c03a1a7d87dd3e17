# MAE's fine-tuning of ViT-H/14 on ImageNet-1K, at 224 px.
_base_ = './vit-large-p16_8xb128-coslr-50e_in1k.py'

model = dict(backbone=dict(arch='huge', patch_size=14, drop_path_rate=0.3), head=dict(in_channels=1280))
