import pytest

from mmmlo.datasets import DatasetFolderError, check_dataset_folder


def test_what_is_there_passes(image_folder):
    root = image_folder(cat=1)
    check_dataset_folder(dict(type='CustomDataset', data_root=str(root)))
    check_dataset_folder(dict(type='CustomDataset', data_root=str(root), data_prefix='cat', with_label=False))
    check_dataset_folder(dict(type='mmmlo.Digits'))


def test_what_a_dataset_downloads_may_be_missing(tmp_path):
    cifar = dict(type='CIFAR10', data_root=str(tmp_path / 'cifar10'))
    check_dataset_folder(cifar)
    with pytest.raises(DatasetFolderError, match='`dataset.data_root`: there is no folder'):
        check_dataset_folder(dict(cifar, download=False))


def test_remote_data_is_left_alone():
    check_dataset_folder(dict(type='CustomDataset', data_root='s3://bucket/images'))


def test_wrappers_are_looked_into(tmp_path):
    missing = dict(type='CustomDataset', data_root=str(tmp_path / 'no'))
    wrapped = dict(type='RepeatDataset', times=2, dataset=dict(type='mmmlo.SplitDataset', dataset=missing))
    with pytest.raises(DatasetFolderError, match=r'`train_dataloader\.dataset\.dataset\.dataset\.data_root`'):
        check_dataset_folder(wrapped, 'train_dataloader.dataset')
    with pytest.raises(DatasetFolderError, match=r'`dataset\.datasets\[1\]\.data_root`'):
        check_dataset_folder(dict(type='ConcatDataset', datasets=[dict(type='mmmlo.Digits'), missing]))


def test_annotation_file_and_imagenet_split(image_folder):
    root = image_folder(cat=1)
    with pytest.raises(DatasetFolderError, match=rf'`dataset\.ann_file`: there is no file {root}/list\.txt'):
        check_dataset_folder(dict(type='CustomDataset', data_root=str(root), ann_file='list.txt'))
    with pytest.raises(DatasetFolderError, match=rf'there is no folder {root}/train'):
        check_dataset_folder(dict(type='ImageNet', data_root=str(root), split='train'))


def test_a_relative_path_is_shown_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetFolderError, match=rf'data/x \(that is, {tmp_path}/data/x\)'):
        check_dataset_folder(dict(type='CustomDataset', data_root='data/x'))
