# FGVC-Aircraft, variants, 100 classes: 6,667 training and 3,333 test images.
# Its training and validation split are trained on.
# Cost: 5,200 steps of 128 images.
# Run:  python tools/train.py configs/benchmarks/vit-base-p16_1xb128-coslr-100e_aircraft.py --backbone CHECKPOINT
_base_ = '../_base_/benchmarks/fine-grained.py'

model = dict(data_preprocessor=dict(num_classes=100), head=dict(num_classes=100))
train_dataloader = dict(dataset=dict(type='FGVCAircraft', data_root='data/aircraft', split='trainval'))
val_dataloader = dict(dataset=dict(type='FGVCAircraft', data_root='data/aircraft', split='test'))
test_dataloader = val_dataloader
