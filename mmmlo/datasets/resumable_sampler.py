"""Samplers that can begin a round in its middle, and give each sample the seed of its augmentation."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.dist import get_rank, sync_random_seed
from torch.utils.data import BatchSampler, Sampler

from mmmlo.registry import DATA_SAMPLERS

from .seeded_dataset import SampleIndex

__all__ = ['ResumableBatchSampler', 'ResumableSampler', 'sample_seed']


def sample_seed(seed: int, epoch: int, idx: int, repetition: int = 0, rank: int = 0) -> int:
    """Derive the seed of a sample's augmentation, of 64 bits.

    Args:
        seed (int): That of the loader.
        epoch (int): The round through its dataset, from 0.
        idx (int): The sample.
        repetition (int): How often the sample has come in this round. Defaults to 0.
        rank (int): Where a sample is dealt out to several processes, the process. Defaults to 0.
    """
    text = f'{seed} {epoch} {idx} {repetition} {rank}'.encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), 'little')


class _Resumable:
    """Another sampler's order, from any place on; in everything else it is the sampler inside."""

    inside: str  # the attribute that holds it
    _skip = 0

    def __getattr__(self, name: str) -> Any:
        if name == self.inside or name.startswith('__'):
            raise AttributeError(name)
        return getattr(getattr(self, self.inside), name)

    def skip(self, count: int) -> None:
        """Leave out so many items of this process's at the beginning of the next round, and of that one alone."""
        self._skip = count

    def __len__(self) -> int:
        """Count the items of a whole round."""
        return len(getattr(self, self.inside))

    def _rest(self, items: Iterator) -> Iterator:
        skip, self._skip = self._skip, 0
        return itertools.islice(items, skip, None)


@DATA_SAMPLERS.register_module()
class ResumableSampler(_Resumable, Sampler):
    """Another sampler's order, from any place on, with a seed for each sample.

    Where a sampler repeats samples, each time has another seed. :class:`SeededDataset` makes use of them. The training loops
    of this project put it around theirs.

    Args:
        dataset (Any): The dataset.
        sampler (Any): The sampler, or its config. One whose order is not a function of its ``seed`` and of the number
            that ``set_epoch`` gives it cannot be resumed.
        seed (int, optional): Of the order, if the sampler is built here, and of the samples. Defaults to None: one that all
            processes agree on.
    """

    inside = 'sampler'

    def __init__(self, dataset: Any, sampler: Any, seed: int | None = None) -> None:
        self.seed = sync_random_seed() if seed is None else seed
        if isinstance(sampler, Mapping):
            sampler = DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=self.seed))
        self.sampler = sampler
        self.epoch = 0
        # mmpretrain's RepeatAugSampler gives each process one of the repetitions of a sample.
        self._rank = get_rank() if getattr(sampler, 'num_repeats', 1) > 1 else 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the round."""
        self.epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def reseed(self, seed: int) -> None:
        """Take another seed, that of the run that is resumed."""
        self.seed = seed
        if hasattr(self.sampler, 'seed'):
            self.sampler.seed = seed

    def __iter__(self) -> Iterator[SampleIndex]:
        return self._rest(self._seeded(self.epoch))

    def _seeded(self, epoch: int) -> Iterator[SampleIndex]:
        times: Counter[int] = Counter()
        for idx in self.sampler:
            yield SampleIndex(idx, sample_seed(self.seed, epoch, idx, times[idx], self._rank))
            times[idx] += 1


@DATA_SAMPLERS.register_module()
class ResumableBatchSampler(_Resumable, BatchSampler):
    """Another batch sampler's batches, from any place on. It wraps those that a config asks for.

    Args:
        sampler (Sampler): What the batches are made of.
        batch_size (int): Samples a batch, unless the config of the batch sampler says so.
        batch_sampler (Any): The batch sampler, or its config.
    """

    inside = 'batch_sampler'

    def __init__(self, sampler: Sampler, batch_size: int, batch_sampler: Any) -> None:
        if isinstance(batch_sampler, Mapping):
            batch_sampler = DATA_SAMPLERS.build(batch_sampler, default_args=dict(sampler=sampler, batch_size=batch_size))
        self.sampler = sampler
        self.batch_sampler = batch_sampler

    def __iter__(self) -> Iterator[list[int]]:
        return self._rest(iter(self.batch_sampler))
