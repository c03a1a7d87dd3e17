"""Writes down where a run comes from."""

import json
import logging
import os
import os.path as osp
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner, find_latest_checkpoint

from mmmlo.datasets import data_fingerprint
from mmmlo.registry import HOOKS
from mmmlo.utils.provenance import git_state, loaded_versions
from mmmlo.utils.whole_file import write_whole


@HOOKS.register_module()
class ProvenanceHook(Hook):
    """Writes ``provenance.json`` to the work dir: an entry for each time that training begins.

    An entry holds the time, the command line, the resolved config, seed, launcher and number of processes, versions of what
    is imported, the state of this project's git repository, where it was resumed from, and a fingerprint of each level's
    and the validation's data.

    Args:
        fingerprints (bool): Whether to hash the annotations of the data. Defaults to True.
    """

    # After whatever changes the run, before the first step.
    priority = 'VERY_LOW'

    def __init__(self, fingerprints: bool = True) -> None:
        self.fingerprints = fingerprints

    def before_train(self, runner: Runner) -> None:
        """Add an entry."""
        if not is_main_process():
            return
        path = osp.join(runner.work_dir, 'provenance.json')
        runs: list[dict[str, Any]] = []
        if osp.exists(path):
            with open(path, encoding='utf-8') as file:
                runs = json.load(file)['runs']
        content = dict(format=1, runs=[*runs, self._entry(runner)])
        try:
            write_whole(path, json.dumps(content, indent=1) + '\n')
        except OSError as error:  # not worth a run
            print_log(f'{path} cannot be written: {error.strerror}', 'current', logging.WARNING)

    def _entry(self, runner: Runner) -> dict[str, Any]:
        resumed = None
        if runner.iter:  # of `resume` without `load_from`, mmengine does not say from what
            checkpoint = runner._load_from or find_latest_checkpoint(runner.work_dir)
            resumed = dict(checkpoint=checkpoint, epoch=runner.epoch, iter=runner.iter)
        return dict(
            started=datetime.now(timezone.utc).isoformat(timespec='seconds'),
            command=sys.argv,
            folder=os.getcwd(),
            experiment=runner.experiment_name,
            seed=runner.seed,
            deterministic=runner.deterministic,
            launcher=runner._launcher,
            processes=get_world_size(),
            load_from=None if resumed else runner._load_from,
            resumed=resumed,
            versions=loaded_versions(),
            git=git_state(),
            data={name: data_fingerprint(dataset) for name, dataset in _datasets(runner)} if self.fingerprints else None,
            config=runner.cfg.pretty_text,
        )


def _datasets(runner: Runner) -> Iterator[tuple[str, Any]]:
    yield 'train_dataloader', runner.train_dataloader.dataset
    for level, loader in getattr(runner.train_loop, 'level_loaders', {}).items():
        yield f'train_cfg.dataloaders.{level}', loader.dataset
    if runner.val_loop is not None:
        yield 'val_dataloader', runner.val_loop.dataloader.dataset
