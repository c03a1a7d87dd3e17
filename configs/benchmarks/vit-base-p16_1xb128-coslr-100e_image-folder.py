# A folder of photographs with 10 classes: data/images/train/<class>/* and data/images/test/<class>/*.
# Cost: for 10,000 training images, 7,800 steps of 128.
# Run:  ln -s /path/to/images data/images   (train/<class>/*, test/<class>/*); with other than 10 classes, say how many
#       python tools/train.py configs/benchmarks/vit-base-p16_1xb128-coslr-100e_image-folder.py \
#           --backbone CHECKPOINT --cfg-options model.head.num_classes=7 model.data_preprocessor.num_classes=7
_base_ = '../_base_/benchmarks/fine-grained.py'

model = dict(data_preprocessor=dict(num_classes=10), head=dict(num_classes=10))
train_dataloader = dict(dataset=dict(type='mmmlo.ImageFolder', data_root='data/images', data_prefix='train'))
val_dataloader = dict(dataset=dict(type='mmmlo.ImageFolder', data_root='data/images', data_prefix='test'))
test_dataloader = val_dataloader
# There may be fewer than five classes.
val_evaluator = dict(topk=(1, ))
test_evaluator = val_evaluator
