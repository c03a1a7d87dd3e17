import os
import pickle
import struct

import numpy as np
import pytest
from mmengine.runner import Runner
from mmpretrain.datasets import CIFAR10, MNIST, CustomDataset
from torch.utils.data import Subset

from mmmlo.datasets import Digits, SourceIndex, SplitDataset, sample_sources
from mmmlo.registry import DATASETS


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """The real class on a small archive in CIFAR-10's own format, with the checksums left out."""
    root = tmp_path / 'cifar'
    (root / CIFAR10.base_folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (('data_batch_1', 40), ('test_batch', 20)):
        entry = dict(data=rng.integers(0, 256, (count, 3072), dtype=np.uint8), labels=[i % 10 for i in range(count)])
        (root / CIFAR10.base_folder / name).write_bytes(pickle.dumps(entry))
    (root / CIFAR10.base_folder / 'batches.meta').write_bytes(pickle.dumps({}))
    monkeypatch.setattr(CIFAR10, 'train_list', [['data_batch_1', None]])
    monkeypatch.setattr(CIFAR10, 'test_list', [['test_batch', None]])

    def build(**kwargs):
        return CIFAR10(data_root=str(root), download=False, **kwargs)

    build.root = root
    return build


def names(root, split, indices):
    return {f'CIFAR10:{root}:{split}#{i}' for i in indices}


def test_an_archive_counts_its_images(cifar):
    assert sample_sources(cifar()) == names(cifar.root, 'train', range(40))
    assert sample_sources(cifar(split='test')) == names(cifar.root, 'test', range(20))


@pytest.mark.parametrize(
    ('indices', 'kept'), [(7, range(7)), (-5, range(35, 40)), ([3, 9, -1], [3, 9, 39]), (40, range(40)), (99, range(40))]
)
def test_indices_do_not_change_names(cifar, indices, kept):
    for serialize in (True, False):
        dataset = cifar(indices=indices, serialize_data=serialize)
        assert sample_sources(dataset) == names(cifar.root, 'train', kept)


def test_a_subclass_reads_the_same_archive(cifar):
    class MyCIFAR(CIFAR10):
        pass

    mine = MyCIFAR(data_root=str(cifar.root), download=False)
    assert sample_sources(mine) == sample_sources(cifar())


def test_files_are_named_by_their_real_path(image_folder, tmp_path, monkeypatch):
    root = image_folder(cat=3, dog=2)
    expected = {str(path) for path in root.glob('*/*.png')}
    assert sample_sources(CustomDataset(data_root=str(root))) == expected

    monkeypatch.chdir(tmp_path)
    assert sample_sources(CustomDataset(data_root='images')) == expected
    os.symlink(root, tmp_path / 'alias')
    assert sample_sources(CustomDataset(data_root=str(tmp_path / 'alias'))) == expected
    (tmp_path / 'links' / 'cat').mkdir(parents=True)
    os.symlink(root / 'cat' / '001.png', tmp_path / 'links' / 'cat' / 'other.png')
    assert sample_sources(CustomDataset(data_root=str(tmp_path / 'links'))) == {str(root / 'cat' / '001.png')}


def test_wrappers_are_seen_through(image_folder):
    root = image_folder(cat=6, dog=6)
    base = CustomDataset(data_root=str(root))
    paths = np.array([base.get_data_info(i)['img_path'] for i in range(12)])

    def named(dataset):
        return sample_sources(dataset)

    part = SplitDataset(base, part='val', fractions=dict(train=0.5, val=0.5))
    assert named(part) == set(paths[part.indices])
    assert named(DATASETS.build(dict(type='RepeatDataset', times=3, dataset=base))) == set(paths)
    assert named(DATASETS.build(dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=base))) == set(paths)
    assert named(DATASETS.build(dict(type='ConcatDataset', datasets=[base, base]))) == set(paths)
    assert named(Subset(part, [1, 2])) == set(paths[part.indices[[1, 2]]])
    joined = DATASETS.build(dict(type='ConcatDataset', datasets=[base, base]))
    assert named(Subset(joined, [3, 14])) == {paths[3], paths[2]}
    folds = DATASETS.build(
        dict(type='KFoldDataset', num_splits=3, test_mode=True, dataset=dict(type='CustomDataset', data_root=str(root)))
    )
    assert named(folds) == set(paths[:4])
    loader = Runner.build_dataloader(
        dict(dataset=part, batch_size=2, num_batch_per_epoch=2, sampler=dict(type='DefaultSampler', shuffle=False))
    )
    assert named(loader.dataset) == set(paths[part.indices[:4]])


def test_shared_images_are_those_of_the_names(image_folder, cifar):
    root = image_folder(cat=8, dog=8)
    cfg = dict(type='CustomDataset', data_root=str(root))
    first = SplitDataset(cfg, part='train', seed=0)
    second = SplitDataset(cfg, part='train', seed=1)
    index = SourceIndex()
    assert index.shared(first, second) == sample_sources(first) & sample_sources(second) != set()
    assert index.shared(first, SplitDataset(cfg, part='val', seed=0)) == set()
    assert len(index._read) == 1, 'the three equal base datasets must be read once'

    assert index.shared(cifar(indices=10), cifar(indices=[5, 20])) == names(cifar.root, 'train', [5])
    assert index.shared(cifar(), cifar(split='test')) == set()
    assert index.shared(Digits(), SplitDataset(Digits(size=8))) == sample_sources(SplitDataset(Digits()))


def test_a_file_listed_twice_is_found_on_both_sides(image_folder, tmp_path):
    root = image_folder(cat=4)
    (tmp_path / 'list.txt').write_text(''.join(f'cat/{i % 4:03}.png 0\n' for i in range(8)))
    cfg = dict(type='CustomDataset', data_root=str(root), ann_file=str(tmp_path / 'list.txt'), classes=['cat'])
    fractions = dict(train=0.5, val=0.5)
    train, val = (SplitDataset(cfg, part=part, fractions=fractions) for part in fractions)
    assert not set(train.indices) & set(val.indices)
    assert SourceIndex().shared(train, val) == sample_sources(train) & sample_sources(val) != set()


def test_mnist_reads_what_test_mode_says(tmp_path, monkeypatch):
    """mmpretrain's MNIST keeps `split` but chooses the files by `test_mode`."""
    for name, count in (('train', 6), ('t10k', 3)):
        images = struct.pack('>IIII', 0x803, count, 28, 28) + bytes(count * 784)
        (tmp_path / f'{name}-images-idx3-ubyte').write_bytes(images)
        (tmp_path / f'{name}-labels-idx1-ubyte').write_bytes(struct.pack('>II', 0x801, count) + bytes(count))
    kwargs = dict(data_root=str(tmp_path), download=False)
    train, odd, test = MNIST(**kwargs), MNIST(split='test', **kwargs), MNIST(split='test', test_mode=True, **kwargs)
    assert len(odd) == 6, 'if this fails, mmpretrain has changed, and `archive_split` must follow'
    assert sample_sources(odd) == sample_sources(train)
    assert sample_sources(test) == {f'MNIST:{tmp_path}:test#{i}' for i in range(3)}


def test_other_datasets_are_told_apart_by_the_object():
    first, second = list(range(5)), list(range(5))
    assert SourceIndex().shared(first, second) == set()
    assert len(SourceIndex().shared(first, Subset(first, [0, 3]))) == 2
