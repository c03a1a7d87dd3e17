# Stanford Cars, 196 classes: 8,144 training and 8,041 test images.
# Cost: 6,300 steps of 128 images.
# Run:  python tools/train.py configs/benchmarks/vit-base-p16_1xb128-coslr-100e_cars.py --backbone CHECKPOINT
_base_ = '../_base_/benchmarks/fine-grained.py'

model = dict(data_preprocessor=dict(num_classes=196), head=dict(num_classes=196))
train_dataloader = dict(dataset=dict(type='StanfordCars', data_root='data/cars', split='train'))
val_dataloader = dict(dataset=dict(type='StanfordCars', data_root='data/cars', split='test'))
test_dataloader = val_dataloader
