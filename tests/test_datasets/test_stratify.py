import numpy as np
import pytest

from mmmlo.datasets import stratified_parts

FRACTIONS = [
    {'train': 0.8, 'val': 0.2},
    {'a': 0.5, 'b': 0.3, 'c': 0.2},
    {'a': 0.29, 'b': 0.71},
    {f'fold{i}': 0.1 for i in range(10)},
]


@pytest.mark.parametrize('fractions', FRACTIONS)
def test_parts_are_disjoint_cover_everything_and_keep_the_shares(fractions):
    labels = np.random.RandomState(1).choice(7, size=1003, p=[0.3, 0.2, 0.15, 0.15, 0.1, 0.06, 0.04])
    parts = stratified_parts(labels, fractions, seed=0)

    assert list(parts) == list(fractions)
    together = np.concatenate(list(parts.values()))
    np.testing.assert_array_equal(np.sort(together), np.arange(len(labels)))
    for name, share in fractions.items():
        assert abs(len(parts[name]) - share * len(labels)) <= 1
        assert (np.diff(parts[name]) > 0).all()
        for label in range(7):
            assert abs((labels[parts[name]] == label).sum() - share * (labels == label).sum()) <= 2


def test_rare_classes_appear_in_every_part():
    labels = np.array([0] * 100 + [1] * 3 + [2] * 4)
    parts = stratified_parts(labels, {'train': 0.9, 'val': 0.05, 'extra': 0.05}, seed=0)
    for indices in parts.values():
        assert set(labels[indices]) == {0, 1, 2}


def test_the_cut_depends_on_the_seed_alone():
    labels = np.arange(200) % 5
    first = stratified_parts(labels, {'train': 0.8, 'val': 0.2}, seed=3)['val']
    np.random.seed(99)
    np.random.rand(7)
    np.testing.assert_array_equal(first, stratified_parts(labels, {'train': 0.8, 'val': 0.2}, seed=3)['val'])
    other = stratified_parts(labels, {'train': 0.8, 'val': 0.2}, seed=4)['val']
    assert not np.array_equal(first, other)


def test_the_cut_is_the_one_on_record():
    """A split in a paper or a checkpoint must survive upgrades: these numbers may never change."""
    parts = stratified_parts(np.arange(20) % 2, {'train': 0.8, 'val': 0.2}, seed=0)
    assert parts['val'].tolist() == [0, 9, 10, 15]
