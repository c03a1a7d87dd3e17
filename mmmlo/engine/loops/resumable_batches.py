"""A loader whose place can be saved, and returned to."""

import copy
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmmlo.datasets import DataError, ResumableBatchSampler, ResumableSampler


def build_resumable_loader(runner: Runner, cfg: dict, seed: int, key: str = 'train_dataloader') -> DataLoader:
    """Build a loader whose augmentation is a function of seed, round and sample, and which can begin a round in its middle.

    Neither an iterator of it nor, without workers, its samples move the random state of the main process.
    """
    cfg = copy.copy(cfg)  # a ConfigDict, which mmengine asks for keys that a batch sampler makes needless
    cfg['dataset'] = dict(type='mmmlo.SeededDataset', dataset=cfg['dataset'])
    cfg['sampler'] = dict(type='mmmlo.ResumableSampler', sampler=cfg['sampler'])
    if cfg.get('batch_sampler') is not None:
        cfg['batch_sampler'] = dict(type='mmmlo.ResumableBatchSampler', batch_sampler=cfg['batch_sampler'])
    try:
        loader = runner.build_dataloader(cfg, seed, runner._randomness_cfg.get('diff_rank_seed', False))
    except DataError as error:
        raise DataError(f'{key}.dataset: {error}') from error
    # Each iterator draws a seed for its workers, by default from the generator of the model's dropout.
    loader.generator = torch.Generator().manual_seed(seed)
    return loader


class ResumableBatches:
    """The batches of a loader, round after round, and the place that has been reached.

    Batches that workers have loaded ahead do not count.

    Args:
        loader (DataLoader): The loader. Only one of :func:`build_resumable_loader` can go on inside a round.
        name (str): Its key in the config, for messages.

    Attributes:
        round (int): Rounds that are done.
        batch (int): Batches of this round that have been taken.
    """

    def __init__(self, loader: DataLoader, name: str) -> None:
        self.loader = loader
        self.name = name
        self.round = self.batch = 0
        self._endless = self._all_rounds()
        self._sampler: Any = getattr(loader.batch_sampler, 'sampler', loader.sampler)

    def state_dict(self) -> dict[str, int | None]:
        """Return the place, and what it depends on."""
        seed = getattr(self._sampler, 'seed', None)
        return dict(round=self.round, batch=self.batch, length=len(self.loader), seed=seed)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the place that :meth:`state_dict` told of, or, if that is not possible, to the beginning of its round."""
        self.round, self.batch = state['round'], state['batch']
        resumable = isinstance(self._sampler, ResumableSampler)
        if resumable and state['length'] == len(self.loader):
            self._sampler.reseed(state['seed'])  # as mmengine takes over the run's
        elif self.batch:
            self.batch = 0
            why = f'a round had {state["length"]} batches, and now has {len(self.loader)}'
            print_log(
                f'{self.name} begins its round {self.round} anew, of which the resumed run had taken {state["batch"]} '
                f'batches: {why if resumable else "it was built outside of the training loop"}',
                'current',
                logging.WARNING,
            )

    def finish_round(self) -> None:
        """Go to the beginning of the next round, also from inside of this one."""
        self.round, self.batch = self.round + 1, 0

    def take(self, count: int) -> list[Any]:
        """Take the next batches, in as many rounds as that needs."""
        return list(itertools.islice(self._endless, count))

    def rest_of_round(self) -> Iterator[Any]:
        """Yield the batches that are left of this round."""
        if hasattr(self._sampler, 'set_epoch'):
            self._sampler.set_epoch(self.round)
        if self.batch:
            batch_sampler = self.loader.batch_sampler
            if isinstance(batch_sampler, ResumableBatchSampler):
                batch_sampler.skip(self.batch)
            else:
                assert self.loader.batch_size is not None
                self._sampler.skip(self.batch * self.loader.batch_size)
        for batch in self.loader:
            self.batch += 1
            yield batch

    def _all_rounds(self) -> Iterator[Any]:
        while True:
            yield from self.rest_of_round()
            self.finish_round()
