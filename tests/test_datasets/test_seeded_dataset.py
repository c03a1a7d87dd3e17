"""Augmentation as a function of seed, epoch and sample."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.runner.runner import _SlicedDataset
from torch.utils.data import DataLoader

from mmmlo.datasets import ResumableSampler, SampleIndex, SeededDataset, SplitDataset, sample_sources


class Draws:
    """Each sample is its index and one draw of each generator."""

    metainfo = dict(classes=['a'])

    def __len__(self):
        return 12

    def __getitem__(self, idx):
        return torch.tensor([idx, random.random(), np.random.rand(), float(torch.rand(()))], dtype=torch.float64)


def load(workers=0, seed=3, epoch=0, sliced=False, batch_size=5):
    dataset = SeededDataset(Draws())
    sampler = ResumableSampler(dataset, dict(type='DefaultSampler', shuffle=True), seed)
    sampler.set_epoch(epoch)
    dataset = _SlicedDataset(dataset, 12) if sliced else dataset
    batches = list(DataLoader(dataset, batch_size, sampler=sampler, num_workers=workers))
    rows = torch.cat(batches)
    return rows[rows[:, 0].argsort()]


@pytest.mark.parametrize('other', [dict(workers=2), dict(batch_size=1), dict(sliced=True)])
def test_samples_do_not_depend_on_who_loads_them_and_with_which_others(other):
    torch.manual_seed(0)
    expected = load()
    torch.rand(7)
    assert torch.equal(load(**other), expected)


@pytest.mark.parametrize('other', [dict(seed=4), dict(epoch=1)])
def test_they_do_depend_on_seed_and_epoch(other):
    here, there = load(), load(**other)
    assert torch.equal(here[:, 0], there[:, 0])
    for draw in (1, 2, 3):
        assert not set(here[:, draw].tolist()) & set(there[:, draw].tolist())
        assert len(set(here[:, draw].tolist())) == 12


def draws():
    return random.random(), np.random.rand(), float(torch.rand(()))


def test_the_main_process_draws_on_as_if_nothing_had_been():
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    expected = draws()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    load()
    dataset = SeededDataset(Draws())
    dataset[SampleIndex(3, 5)]
    torch.manual_seed(1)  # an iterator of a loader without a generator of its own draws a seed
    assert draws() == expected


def test_a_plain_index_draws_what_is_next():
    """And without the wrapper's putting the generators back a second time would draw something else."""
    torch.manual_seed(0)
    expected = torch.rand((), dtype=torch.float32)
    torch.manual_seed(0)
    assert float(SeededDataset(Draws())[3][3]) == float(expected)


def test_it_is_the_dataset_inside_in_everything_else():
    images = dict(type='mmmlo.SyntheticImages', per_class=6, size=16)
    split = SplitDataset(dataset=images, part='train')
    dataset = SeededDataset(dict(type='mmmlo.SplitDataset', dataset=images, part='train'))
    assert len(dataset) == len(split)
    assert dataset.metainfo == split.metainfo
    assert dataset.CLASSES == split.CLASSES
    assert (dataset.get_gt_labels() == split.get_gt_labels()).all()
    # Not the sources of the whole dataset that the split cuts.
    assert sample_sources(dataset) == sample_sources(split) == sample_sources(_SlicedDataset(dataset, len(split)))
    with pytest.raises(AttributeError, match='unheard_of'):
        dataset.unheard_of  # noqa: B018
    for twin in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert len(twin) == len(split)


def test_an_index_keeps_its_seed_on_the_way_to_a_worker():
    index = pickle.loads(pickle.dumps(SampleIndex(3, 2**63 + 1)))
    assert (index, index.seed, type(index)) == (3, 2**63 + 1, SampleIndex)


def test_round_ups_and_repetitions_are_told_apart():
    """A sampler that fills up its last round has a sample twice."""

    class Twice(DefaultSampler):
        def __iter__(self):
            for idx in super().__iter__():
                yield idx
                yield idx

    indices = list(ResumableSampler(range(4), Twice(range(4), seed=0), 0))
    assert len({index.seed for index in indices}) == 8


@pytest.mark.parametrize('skip', [0, 5, 12, 15])
def test_a_round_from_its_middle(skip):
    sampler = ResumableSampler(range(12), dict(type='DefaultSampler', shuffle=True), 1)
    sampler.set_epoch(2)
    whole = [(int(index), index.seed) for index in sampler]
    assert [index for index, _ in whole] == list(sampler.sampler)
    sampler.skip(skip)
    assert [(int(index), index.seed) for index in sampler] == whole[skip:]
    assert [(int(index), index.seed) for index in sampler] == whole  # the next round is a whole one
    assert len(sampler) == 12
