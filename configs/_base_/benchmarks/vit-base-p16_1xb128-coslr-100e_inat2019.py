# iNaturalist 2019, 1,010 classes: 265,213 training and 3,030 test images.
# The labels of its test split were never released, so its validation split is the test split here.
_base_ = './fine-grained.py'

model = dict(data_preprocessor=dict(num_classes=1010), head=dict(num_classes=1010))
classes = 'data/inat2019/meta/classes.txt'
train_dataloader = dict(
    dataset=dict(type='CustomDataset', data_root='data/inat2019', ann_file='meta/train.txt', classes=classes))
val_dataloader = dict(
    dataset=dict(type='CustomDataset', data_root='data/inat2019', ann_file='meta/val.txt', classes=classes))
test_dataloader = val_dataloader
