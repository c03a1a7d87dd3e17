import json
import shutil

import numpy as np
import pytest

from mmmlo.datasets import DataError, DatasetFolderError, Digits, SplitDataset, read_labels
from mmmlo.registry import DATASETS


def folder_cfg(root, **kwargs):
    return dict(type='CustomDataset', data_root=str(root), **kwargs)


def test_parts_with_other_pipelines_are_complements(image_folder):
    root = image_folder(cat=20, dog=11, owl=9)
    load = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    # Built in the order val, train, and with a global random state between them that must not matter.
    val = DATASETS.build(dict(type='mmmlo.SplitDataset', part='val', dataset=folder_cfg(root)))
    np.random.seed(5)
    train = DATASETS.build(dict(type='mmmlo.SplitDataset', part='train', dataset=folder_cfg(root, pipeline=load)))

    paths = [part.get_data_info(i)['img_path'] for part in (train, val) for i in range(len(part))]
    assert len(set(paths)) == len(paths) == 40
    assert len(val) == 8
    assert train.metainfo['classes'] == val.metainfo['classes'] == ('cat', 'dog', 'owl')
    assert train[3]['data_samples'].img_path == train.get_data_info(3)['img_path']
    assert 'inputs' in train[0] and 'inputs' not in val[0]


def test_labels_are_those_of_the_samples():
    part = SplitDataset(dict(type='mmmlo.Digits'), part='val', seed=1)
    labels = part.get_gt_labels()
    assert len(labels) == len(part)
    for i in (0, 7, len(part) - 1):
        assert part.get_data_info(i)['gt_label'] == labels[i] == part.get_cat_ids(i)[0] == part[i]['gt_label']
    np.testing.assert_array_equal(np.bincount(labels) / len(labels), np.bincount(labels) / np.bincount(labels).sum())


def test_more_than_two_parts():
    base = Digits()
    fractions = dict(train=0.7, val=0.2, extra=0.1)
    parts = [SplitDataset(base, part=part, fractions=fractions) for part in fractions]
    indices = np.concatenate([part.indices for part in parts])
    np.testing.assert_array_equal(np.sort(indices), np.arange(len(base)))
    assert [round(len(part) / len(base), 2) for part in parts] == [0.7, 0.2, 0.1]


def test_wrappers_of_mmengine_go_around_a_split():
    cfg = dict(type='mmmlo.SplitDataset', part='val', dataset=dict(type='mmmlo.Digits'))
    part = DATASETS.build(cfg)
    repeated = DATASETS.build(dict(type='RepeatDataset', times=3, dataset=cfg))
    assert len(repeated) == 3 * len(part)
    balanced = DATASETS.build(dict(type='ClassBalancedDataset', oversample_thr=1e-3, dataset=cfg))
    assert len(balanced) == len(part)
    joined = DATASETS.build(dict(type='ConcatDataset', datasets=[cfg, dict(cfg, part='train')]))
    assert len(joined) == len(Digits())
    # A dataset without `get_gt_labels` of its own can be split as well.
    np.testing.assert_array_equal(read_labels(joined)[: len(part)], part.get_gt_labels())
    assert len(SplitDataset(joined)) == len(SplitDataset(Digits()))


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(part='test'), r"`part` of SplitDataset must be one of the keys of `fractions`, 'train', 'val', not 'test'"),
        (dict(fractions=dict(train=0.8, val=0.3)), r'`fractions` of SplitDataset must sum to 1, but .* sum to 1\.1'),
        (dict(fractions=dict(train=1.2, val=-0.2)), r'`fractions` of SplitDataset must be numbers above 0'),
        (dict(seed=None), r'`seed` of SplitDataset must be an integer, not None'),
        (dict(dataset=dict(type='RepeatDataset', times=2, dataset=dict(type='mmmlo.Digits'))), r'Wrap the split instead'),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        SplitDataset(**{'dataset': dict(type='mmmlo.Digits'), **wrong})


def test_a_missing_folder_is_named_with_its_key(image_folder, tmp_path):
    root = image_folder(cat=3, dog=3)
    with pytest.raises(DatasetFolderError, match=rf'`dataset\.data_root`: there is no folder {tmp_path}/nowhere\.'):
        SplitDataset(folder_cfg(tmp_path / 'nowhere'))
    with pytest.raises(DatasetFolderError, match=rf'`dataset\.data_prefix`: there is no folder {root}/train'):
        SplitDataset(folder_cfg(root, data_prefix='train'))


def test_an_empty_class_is_named(image_folder):
    root = image_folder(cat=5, dog=5, owl=0)
    with pytest.raises(ValueError, match=f'CustomDataset in {root}: no image for class owl'):
        SplitDataset(folder_cfg(root))
    shutil.rmtree(root / 'owl')
    assert len(SplitDataset(folder_cfg(root))) == 8


def test_a_class_with_fewer_images_than_parts_is_named(image_folder):
    root = image_folder(cat=5, dog=1)
    with pytest.raises(ValueError, match=r'too few images of class dog \(1\).*at least 2'):
        SplitDataset(folder_cfg(root))


def test_images_without_labels_are_cut_at_random(image_folder):
    cfg = folder_cfg(image_folder(cat=20), with_label=False)
    train, val = (SplitDataset(cfg, part=part, by_class=False) for part in ('train', 'val'))
    assert sorted([*train.indices, *val.indices]) == list(range(20))
    assert (len(train), train.get_cat_ids(0)) == (16, [])
    assert list(SplitDataset(cfg, seed=1, by_class=False).indices) != list(train.indices)


@pytest.mark.parametrize('labels', [[[0, 1]] * 10, [[0, 1], [], [1]] * 4])
def test_several_classes_an_image_are_cut_at_random(tmp_path, image_folder, labels):
    root = image_folder(cat=len(labels))
    data_list = [dict(img_path=f'cat/{i:03}.png', gt_label=own) for i, own in enumerate(labels)]
    (tmp_path / 'labels.json').write_text(json.dumps(dict(metainfo=dict(classes=['a', 'b']), data_list=data_list)))
    cfg = dict(type='MultiLabelDataset', ann_file=str(tmp_path / 'labels.json'), data_prefix=str(root))
    train, val = (SplitDataset(cfg, part=part) for part in ('train', 'val'))
    assert sorted([*train.indices, *val.indices]) == list(range(len(labels)))
    assert [train.get_cat_ids(i) for i in range(len(train))] == [labels[i] for i in train.indices]
    assert SplitDataset(train).get_cat_ids(0) in labels
    with pytest.raises(ValueError, match='exactly one class for each image'):
        read_labels(train)


def test_maps_of_labels_are_cut_at_random(tmp_path, image_folder):
    root = image_folder(cat=10)
    cfg = dict(type='mmseg.BaseSegDataset', data_prefix=dict(img_path=str(root / 'cat'), seg_map_path=str(root / 'cat')),
               img_suffix='.png', metainfo=dict(classes=['a']))
    train, val = (SplitDataset(cfg, part=part) for part in ('train', 'val'))
    assert len(train) == 8 and sorted([*train.indices, *val.indices]) == list(range(10))


def test_a_label_outside_the_classes_is_an_error(tmp_path, image_folder):
    root = image_folder(cat=3)
    (tmp_path / 'list.txt').write_text('cat/000.png 0\ncat/001.png 1\ncat/002.png 7\n')
    cfg = folder_cfg(root, ann_file=str(tmp_path / 'list.txt'), classes=['cat', 'dog'])
    with pytest.raises(ValueError, match='label 7, but there are 2 classes'):
        SplitDataset(cfg)


@pytest.mark.parametrize('around', ['none', 'ConcatDataset'])
def test_a_dropped_image_is_replaced_by_one_of_the_same_part(image_folder, around):
    root = image_folder(cat=20, dog=20)
    load = [dict(type='mmmlo.LoadImage', on_corrupt='skip', max_share=1), dict(type='PackInputs')]
    cfg = folder_cfg(root, pipeline=load)
    if around == 'ConcatDataset':
        cfg = dict(type='ConcatDataset', datasets=[cfg])
    part = SplitDataset(cfg, part='val')
    own = [part.get_data_info(i)['img_path'] for i in range(len(part))]
    for path in own[1:]:  # all but one
        open(path, 'wb').close()
    np.random.seed(0)
    assert {part[i]['data_samples'].img_path for i in range(len(part))} == {own[0]}
    open(own[0], 'wb').close()
    with pytest.raises(DataError, match=r"the pipeline dropped 1000 images of the part 'val' in a row"):
        part[0]
