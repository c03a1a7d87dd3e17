# Stanford Cars, 196 classes: 8,144 training and 8,041 test images.
_base_ = './fine-grained.py'

model = dict(data_preprocessor=dict(num_classes=196), head=dict(num_classes=196))
train_dataloader = dict(dataset=dict(type='StanfordCars', data_root='data/cars', split='train'))
val_dataloader = dict(dataset=dict(type='StanfordCars', data_root='data/cars', split='test'))
test_dataloader = val_dataloader
