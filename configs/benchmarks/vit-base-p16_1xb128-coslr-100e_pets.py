# Oxford-IIIT Pets, 37 classes: 3,680 training and 3,669 test images.
# Its training and validation split are trained on.
# Cost: 2,800 steps of 128 images.
# Run:  python tools/train.py configs/benchmarks/vit-base-p16_1xb128-coslr-100e_pets.py --backbone CHECKPOINT
_base_ = '../_base_/benchmarks/fine-grained.py'

model = dict(data_preprocessor=dict(num_classes=37), head=dict(num_classes=37))
train_dataloader = dict(dataset=dict(type='OxfordIIITPet', data_root='data/pets', split='trainval'))
val_dataloader = dict(dataset=dict(type='OxfordIIITPet', data_root='data/pets', split='test'))
test_dataloader = val_dataloader
