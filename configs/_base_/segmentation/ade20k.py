# ADE20K, 150 classes, crops of 512 x 512: data/ade/ADEChallengeData2016/{images,annotations}/{training,validation}.
# The pipelines are mmseg's. Batches of 16 on 8 GPUs.
_base_ = ['mmseg::_base_/datasets/ade20k.py', './runtime.py']

train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(base_batch_size=16, enable=False)
