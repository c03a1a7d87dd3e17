"""Make augmentation depend on the sample alone, not on who loads it or when."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from mmmlo.registry import DATASETS

__all__ = ['SampleIndex', 'SeededDataset']


class SampleIndex(int):
    """The index of a sample, with the seed of its augmentation in this round.

    Args:
        value (int): The index.
        seed (int, optional): A number of 64 bits. Defaults to None.
    """

    seed: int | None

    def __new__(cls, value: int, seed: int | None = None) -> 'SampleIndex':
        index = super().__new__(cls, value)
        index.seed = seed
        return index


@DATASETS.register_module()
class SeededDataset:
    """Seeds Python, NumPy and PyTorch (on the CPU) for each sample that it takes out of a dataset.

    The seed comes with the index, see :class:`SampleIndex` and :class:`ResumableSampler`; a plain ``int`` has none, and its
    sample is drawn as it would be without this wrapper. In the main process the generators are put back afterwards, so that
    the model's draws are the same whether or not there are workers.

    A dataset with ``takes_seeds``, such as :class:`InMemoryImages`, draws from the seeds itself: it gets the indices as they
    are, a batch at a time.

    In everything else it is the dataset inside. The training loops of this project put it around theirs.

    Args:
        dataset (Any): The dataset, or its config.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset

    def __getattr__(self, name: str) -> Any:
        # Neither what a copy is asked for before it has a dataset, nor what Python itself looks for.
        if name == 'dataset' or name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

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
