import pytest
from torch.utils.data import TensorDataset

from mmmlo.datasets import Digits, SplitDataset, data_fingerprint
from mmmlo.registry import DATASETS


def test_it_tells_samples_and_their_order_apart():
    train, val = (SplitDataset(Digits(), part=part) for part in ('train', 'val'))
    datasets = (Digits(), train, val, SplitDataset(Digits(), seed=1), Digits('test'))
    prints = [data_fingerprint(dataset) for dataset in datasets]
    assert [p['images'] for p in prints] == [1438, 1150, 288, 1150, 359]
    assert {p['dataset'] for p in prints} == {'Digits'}
    assert len({p['sha256'] for p in prints}) == len(prints)
    assert data_fingerprint(SplitDataset(Digits())) == prints[1]
    # However the records are stored, a part is its samples.
    assert data_fingerprint(Digits(size=16)) != prints[0]
    assert data_fingerprint(Digits(serialize_data=False))['images'] == 1438


@pytest.mark.parametrize('stored', [True, False])
def test_labels_and_paths_count(image_folder, stored):
    root = image_folder(cat=4, dog=4)

    def fingerprint():
        return data_fingerprint(DATASETS.build(dict(type='CustomDataset', data_root=str(root), serialize_data=stored)))

    first = fingerprint()
    assert fingerprint() == first
    (root / 'cat/003.png').rename(root / 'dog/004.png')
    assert fingerprint() != first and fingerprint()['images'] == first['images'] == 8


def test_what_does_not_say_what_it_holds_is_counted():
    import torch

    assert data_fingerprint(TensorDataset(torch.zeros(3))) == dict(dataset='TensorDataset', images=3, sha256=None)
