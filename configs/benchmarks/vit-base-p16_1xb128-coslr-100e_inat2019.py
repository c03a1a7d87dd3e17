# iNaturalist 2019, 1,010 classes: 265,213 training and 3,030 test images.
# The labels of its test split were never released, so its validation split is the test split here.
# Cost: 207,100 steps of 128 images.
# Run:  python tools/dataset_converters/inat2019.py SRC data/inat2019   (once)
#       python tools/train.py configs/benchmarks/vit-base-p16_1xb128-coslr-100e_inat2019.py --backbone CHECKPOINT
_base_ = '../_base_/benchmarks/fine-grained.py'

model = dict(data_preprocessor=dict(num_classes=1010), head=dict(num_classes=1010))
classes = 'data/inat2019/meta/classes.txt'
train_dataloader = dict(
    dataset=dict(type='CustomDataset', data_root='data/inat2019', ann_file='meta/train.txt', classes=classes))
val_dataloader = dict(
    dataset=dict(type='CustomDataset', data_root='data/inat2019', ann_file='meta/val.txt', classes=classes))
test_dataloader = val_dataloader
