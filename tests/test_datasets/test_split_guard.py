import json
import re

import pytest
from mmpretrain.datasets import CustomDataset, ImageNet
from torch.utils.data import Subset

from mmmlo.datasets import Digits, SplitDataset, SplitOverlapError, check_level_splits, is_test_split
from mmmlo.registry import DATASETS


def part(name, **kwargs):
    return SplitDataset(dict(type='mmmlo.Digits', **kwargs.pop('base', {})), part=name, **kwargs)


def test_the_split_of_the_paper_passes():
    check_level_splits(
        dict(pretrain=part('train'), finetune=part('train'), masking=part('val')), test_dataset=Digits(split='test')
    )
    check_level_splits(dict(pretrain=Digits(), finetune=part('train'), masking=part('val')))
    check_level_splits(dict(pretrain=Digits()), test_dataset=Digits(split='test'))


def test_overlap_of_training_and_validation_is_refused():
    train, val = part('train'), part('val', seed=1)
    shared = len(set(train.indices) & set(val.indices))
    with pytest.raises(SplitOverlapError) as error:
        check_level_splits(dict(finetune=train, masking=val))
    message = str(error.value)
    assert '`train_cfg.dataloaders.finetune.dataset` and `train_cfg.dataloaders.masking.dataset`' in message
    assert f'share {shared} images' in message
    assert re.search(r'for example Digits#\d+\. .*`mmmlo\.SplitDataset`', message)
    assert '\n' not in message


@pytest.mark.parametrize('level', ['pretrain', 'finetune', 'masking'])
def test_an_official_test_split_is_refused_on_every_level(level):
    datasets = dict(pretrain=part('train'), finetune=part('train'), masking=part('val'))
    datasets[level] = part('val', base=dict(split='test'))
    key = 'train_dataloader.dataset' if level == 'pretrain' else f'train_cfg.dataloaders.{level}.dataset'
    with pytest.raises(SplitOverlapError, match=rf"`{re.escape(key)}` is Digits\(split='test'\), an official test split"):
        check_level_splits(datasets)


@pytest.mark.parametrize('level', ['pretrain', 'masking'])
def test_images_of_the_test_loader_are_refused_on_every_level(image_folder, level):
    root = image_folder(cat=10, dog=10)
    test = CustomDataset(data_root=str(root / 'cat'), with_label=False)
    leaking, clean = CustomDataset(data_root=str(root)), CustomDataset(data_root=str(root / 'dog'), with_label=False)
    datasets = dict(pretrain=clean, masking=clean)
    check_level_splits(datasets, test_dataset=test)
    datasets[level] = leaking
    with pytest.raises(SplitOverlapError, match=r'and `test_dataloader\.dataset` share 10 images, for example .*\.png'):
        check_level_splits(datasets, test_dataset=test)


def test_other_pairs_can_be_required_to_be_disjoint():
    datasets = dict(pretrain=part('train'), finetune=part('train'))
    check_level_splits(datasets)
    with pytest.raises(SplitOverlapError, match='`train_dataloader.dataset` and `train_cfg.dataloaders.finetune.dataset`'):
        check_level_splits(datasets, disjoint=[('pretrain', 'finetune')])


def test_official_splits_are_found_inside_wrappers():
    test = dict(type='mmmlo.Digits', split='test')
    assert is_test_split(DATASETS.build(dict(type='RepeatDataset', times=2, dataset=test))) is not None
    joined = dict(type='ConcatDataset', datasets=[dict(type='mmmlo.Digits'), test])
    assert is_test_split(DATASETS.build(joined)) is not None
    assert is_test_split(Digits()) is None
    # None of the images that are used is a test image.
    assert is_test_split(Subset(DATASETS.build(joined), range(1438))) is None
    assert is_test_split(Subset(DATASETS.build(joined), range(1439))) is not None


def test_coco_val_is_a_test_split(tmp_path):
    from mmdet.datasets import CocoDataset

    for split in ('train2017', 'val2017'):
        content = dict(images=[dict(id=1, file_name='1.jpg', height=9, width=9)], annotations=[], categories=[])
        (tmp_path / f'instances_{split}.json').write_text(json.dumps(content))
    train, val = (CocoDataset(ann_file=str(tmp_path / f'instances_{name}.json'), data_prefix=dict(img=str(tmp_path / name)))
                  for name in ('train2017', 'val2017'))
    assert is_test_split(train) is None
    assert is_test_split(val) == "CocoDataset(split='val2017')"
    with pytest.raises(SplitOverlapError, match='share 1 images'):
        check_level_splits(dict(finetune=train, masking=train))


def test_imagenet_val_is_a_test_split(image_folder):
    for split in ('train', 'val'):
        image_folder(f'imagenet/{split}', n01440764=2, n01443537=2)
    root = str(image_folder('imagenet/spare', x=1).parent)
    classes = ['tench', 'goldfish']
    train, val = (ImageNet(data_root=root, split=split, classes=classes) for split in ('train', 'val'))
    assert is_test_split(train) is None
    assert is_test_split(val) == "ImageNet(split='val')"
    # A folder of one's own that is called val is nobody's official split.
    assert is_test_split(CustomDataset(data_root=root, data_prefix='val')) is None
