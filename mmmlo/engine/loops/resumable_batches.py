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

from mmmlo.datasets import ResumableBatchSampler, ResumableSampler

__all__ = ['ResumableBatches', 'build_resumable_loader']


def build_resumable_loader(runner: Runner, cfg: dict, seed: int) -> DataLoader:
    """Build a loader whose augmentation is a function of seed, round and sample, and which can begin a round in its middle.

    Neither an iterator of it nor, without workers, its samples move the random state of the main process.

    Args:
        runner (Runner): The runner.
        cfg (dict): The loader's config; it is not changed.
        seed (int): Its seed.

    Returns:
        DataLoader: The loader.
    """
    cfg = copy.copy(cfg)  # a ConfigDict, which mmengine asks for keys that a batch sampler makes needless
    cfg['dataset'] = dict(type='mmmlo.SeededDataset', dataset=cfg['dataset'])
    cfg['sampler'] = dict(type='mmmlo.ResumableSampler', sampler=cfg['sampler'])
    if cfg.get('batch_sampler') is not None:
        cfg['batch_sampler'] = dict(type='mmmlo.ResumableBatchSampler', batch_sampler=cfg['batch_sampler'])
    loader = runner.build_dataloader(cfg, seed, runner._randomness_cfg.get('diff_rank_seed', False))
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
        self.round = 0
        self.batch = 0
        self._iterator: Iterator | None = None
        self._sampler: Any = getattr(loader.batch_sampler, 'sampler', loader.sampler)

    def state_dict(self) -> dict[str, int | None]:
        """The place, and what it depends on."""
        seed = getattr(self._sampler, 'seed', None)
        return dict(round=self.round, batch=self.batch, length=len(self.loader), seed=seed)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the place that :meth:`state_dict` told of, or, if that is not possible, to the beginning of its round."""
        self.go_to(state['round'], state['batch'])
        sampler = self._sampler
        why = None
        if not isinstance(sampler, ResumableSampler):
            why = 'it was built outside of the training loop'
        elif state['length'] != len(self.loader):
            why = f'a round had {state["length"]} batches, and now has {len(self.loader)}'
        elif state['seed'] != sampler.seed:
            sampler.reseed(state['seed'])  # as mmengine takes over the run's
        if why is not None and self.batch:
            self.batch = 0
            print_log(
                f'{self.name} begins its round {self.round} anew, of which the resumed run had taken {state["batch"]} '
                f'batches: {why}',
                'current',
                logging.WARNING,
            )

    def go_to(self, round: int, batch: int = 0) -> None:
        """Go to a place."""
        self.round, self.batch, self._iterator = round, batch, None

    def finish_round(self) -> None:
        """Go to the beginning of the next round, also from inside of this one."""
        self.go_to(self.round + 1)

    def take(self, count: int) -> list[Any]:
        """Take the next batches, in as many rounds as that needs."""
        taken: list[Any] = []
        while len(taken) < count:
            if self._iterator is None:
                self._iterator = self._start()
            for batch in itertools.islice(self._iterator, count - len(taken)):
                self.batch += 1
                taken.append(batch)
            if len(taken) < count:
                self.finish_round()
        return taken

    def rest_of_round(self) -> Iterator[Any]:
        """Yield the batches that are left of this round."""
        for batch in self._start():
            self.batch += 1
            yield batch

    def _start(self) -> Iterator:
        sampler = self._sampler
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(self.round)
        if self.batch:
            batch_sampler = self.loader.batch_sampler
            if isinstance(batch_sampler, ResumableBatchSampler):
                batch_sampler.skip(self.batch)
            else:
                assert self.loader.batch_size is not None
                sampler.skip(self.batch * self.loader.batch_size)
        return iter(self.loader)
