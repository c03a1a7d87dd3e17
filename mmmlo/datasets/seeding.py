"""Make augmentation depend on the sample alone, not on who loads it or when, and let a round begin in its middle."""

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, sync_random_seed
from torch.utils.data import BatchSampler, Sampler, get_worker_info

from mmmlo.registry import DATA_SAMPLERS, DATASETS

__all__ = ['ResumableBatchSampler', 'ResumableSampler', 'SampleIndex', 'SeededDataset']


class SampleIndex(int):
    """The index of a sample, with the seed of its augmentation in this round: 64 bits, or None."""

    seed: int | None

    def __new__(cls, value: int, seed: int | None = None) -> 'SampleIndex':
        index = super().__new__(cls, value)
        index.seed = seed
        return index


class Wrapper:
    """Hands through everything that it lacks itself, but for what is ``hidden``, to what the attribute ``inside`` holds."""

    inside: str = 'dataset'
    hidden: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        # Neither what a copy is asked for before it holds anything, nor what Python itself looks for.
        if name in (self.inside, *self.hidden) or name.startswith('__'):
            raise AttributeError(name)
        return getattr(getattr(self, self.inside), name)

    def __len__(self) -> int:
        return len(getattr(self, self.inside))


@DATASETS.register_module()
class SeededDataset(Wrapper):
    """Seeds Python, NumPy and PyTorch (on the CPU) for each sample that it takes out of a dataset, or out of its config.

    The seed comes with the index, see :class:`ResumableSampler`; an ``int`` has none. In the main process the generators
    are put back afterwards, so that the model's draws are the same whether or not there are workers. A dataset with
    ``takes_seeds``, such as :class:`InMemoryImages`, gets the indices as they are, a batch at a time, and draws itself.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset

    def __getitem__(self, idx: int) -> Any:
        return self.__getitems__([idx])[0]

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Any]:
        """Take samples; PyTorch's loaders call this for a batch, for which the generators are put back once."""
        if getattr(self.dataset, 'takes_seeds', False):
            return self.dataset.__getitems__(indices)
        with _put_back():
            return [self._take(idx) for idx in indices]

    def _take(self, idx: int) -> Any:
        seed = getattr(idx, 'seed', None)
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed & 0xFFFFFFFF)
            # Not torch.manual_seed, which would seed GPUs too.
            torch.default_generator.manual_seed(seed)
        return self.dataset[int(idx)]


@contextmanager
def _put_back() -> Iterator[None]:
    """In the main process, leave the generators as they were."""
    if get_worker_info() is not None:
        yield
        return
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class _Resumable(Wrapper):
    """Another sampler's order, from any place on."""

    _skip = 0

    def skip(self, count: int) -> None:
        """Leave out so many items of this process's at the beginning of the next round, and of that one alone."""
        self._skip = count

    def _rest(self, items: Iterator) -> Iterator:
        skip, self._skip = self._skip, 0
        return itertools.islice(items, skip, None)


@DATA_SAMPLERS.register_module()
class ResumableSampler(_Resumable, Sampler):
    """Another sampler's order, from any place on, with a seed for each sample, which :class:`SeededDataset` makes use of.

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
            text = f'{self.seed} {epoch} {idx} {times[idx]} {self._rank}'.encode()
            yield SampleIndex(idx, int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), 'little'))
            times[idx] += 1


@DATA_SAMPLERS.register_module()
class ResumableBatchSampler(_Resumable, BatchSampler):
    """Another batch sampler's batches, from any place on; ``batch_sampler`` may be its config."""

    inside = 'batch_sampler'

    def __init__(self, sampler: Sampler, batch_size: int, batch_sampler: Any) -> None:
        if isinstance(batch_sampler, Mapping):
            batch_sampler = DATA_SAMPLERS.build(batch_sampler, default_args=dict(sampler=sampler, batch_size=batch_size))
        self.sampler = sampler
        self.batch_sampler = batch_sampler

    def __iter__(self) -> Iterator[list[int]]:
        return self._rest(iter(self.batch_sampler))
