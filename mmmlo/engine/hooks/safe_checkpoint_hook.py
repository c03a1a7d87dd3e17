"""Checkpoints that are whole or not there."""

import glob
import logging
import os
import os.path as osp
from collections import deque
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log

from mmmlo.registry import HOOKS
from mmmlo.utils.checkpoints import CheckpointError, check_checkpoint
from mmmlo.utils.whole_file import flush, replace_whole, write_whole


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, which loses no checkpoint that it has, and saves where the training loop stands.

    mmengine removes the oldest file before it writes the new one. Here a checkpoint is written beside its place, flushed to
    the disk, read back, renamed, and named in ``last_checkpoint``; only then the oldest is removed, and the former best one.
    Where writing fails, as on a full disk, that is reported, all other files are left, and training goes on. Files of a
    remote backend are written by that backend as they are; it has to see to their being whole.

    With :class:`mmmlo.ResumableTrainLoop` and :class:`mmmlo.MultiLevelTrainLoop` a checkpoint holds, under ``train_loop``,
    the place in each loader and the random state of each process. See ``docs/reliability.md``.

    The arguments are those of mmengine's hook.
    """

    keep_ckpt_ids: deque
    _local = True
    _loop_state: dict[str, Any] | None = None
    # Iterations of the latest checkpoint that this process has saved.
    saved_iter: int | None = None

    def before_train(self, runner) -> None:
        """Find out where files go, and remove those that an earlier run could not finish."""
        super().before_train(runner)
        backend = getattr(self.file_backend, 'client', self.file_backend)
        self._local = isinstance(backend, LocalBackend)
        if not self._local or not is_main_process():
            return
        for folder, names in ((self.out_dir, '*.pth*.tmp'), (runner.work_dir, 'last_checkpoint.*.tmp')):
            for path in glob.glob(osp.join(glob.escape(folder), names)):
                os.remove(path)
                print_log(f'{path} was never finished, and is removed', 'current')

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add where the training loop stands."""
        if self._loop_state is not None:
            checkpoint['train_loop'] = self._loop_state

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Tell the training loop where it stands."""
        if runner._resume and 'train_loop' in checkpoint and hasattr(runner.train_loop, 'load_state_dict'):
            runner.train_loop.load_state_dict(checkpoint['train_loop'])

    def save_now(self, runner, between_epochs: bool = False) -> bool:
        """Save ``iter_<n>.pth`` whatever the interval is, to be removed when a later one has been written.

        All processes have to call it, at the end of an iteration, which is about to be counted, or between epochs, when the
        last one is counted already.

        Returns:
            bool: Whether there is a checkpoint of this iteration.
        """
        iteration = runner.iter if between_epochs else runner.iter + 1
        if self.saved_iter == iteration:
            return True
        return self._save_resumable(runner, f'iter_{iteration}.pth', dict(epoch=runner.epoch, iter=iteration))

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        self._save_resumable(runner, self.filename_tmpl.format(step), meta, step)

    def _save_resumable(self, runner, name: str, meta: dict, step: int | None = None) -> bool:
        """Save a checkpoint that the run can go on from, and remove what it takes the place of.

        ``step`` is its number among those of ``max_keep_ckpts``, None if the file is to be removed after the next one.
        """
        hub, path, most = runner.message_hub, self._path(name), self.max_keep_ckpts
        kept, passing = list(self.keep_ckpt_ids) if most > 0 else [], list(hub.get_info('passing_ckpts', []))
        if step is None:
            passing.append(path)
        elif most > 0 and step not in kept:
            kept.append(step)
        # The file names all that is there at the time: what is removed after it, the next run removes if this one cannot.
        infos = dict(last_ckpt=path, passing_ckpts=passing, keep_ckpt_ids=kept)
        if hasattr(runner.train_loop, 'state_dict'):
            self._loop_state = runner.train_loop.state_dict()
        saved = self._save(
            runner,
            name,
            infos,
            pointer=osp.join(runner.work_dir, 'last_checkpoint'),
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            **self.args,
        )
        self._loop_state = None
        if not saved:
            return False
        self.last_ckpt, self.saved_iter = path, meta['iter']
        outdated = [old for old in passing if old != path]
        while len(kept) > most > 0:
            outdated.append(self._path(self.filename_tmpl.format(kept.pop(0))))
        self._remove(outdated)
        self.keep_ckpt_ids = deque(kept)
        hub.update_info_dict(dict(passing_ckpts=[path] if step is None else [], keep_ckpt_ids=kept))
        return True

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        """Save a checkpoint for each metric that is better than before."""
        if not self.save_best:
            return
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        kind, number = ('epoch', runner.epoch) if self.by_epoch else ('iter', runner.iter)
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        single, updated = len(self.key_indicators) == 1, False
        for key, rule in zip(self.key_indicators, self.rules):
            score_key, path_key = (name if single else f'{name}_{key}' for name in ('best_score', 'best_ckpt'))
            score, best = metrics[key], runner.message_hub.get_info(score_key, self.init_value_map[rule])
            if score is None or not self.is_better_than[key](score, best):
                continue
            name = f'best_{key}_{self.filename_tmpl.format(number)}'.replace('/', '_')
            path, former = self._path(name), runner.message_hub.get_info(path_key)
            infos = {score_key: score, path_key: path}
            settings: dict[str, Any] = dict(save_optimizer=False, save_param_scheduler=False, by_epoch=False)
            if not self._save(runner, name, infos, meta=dict(meta), **settings):
                continue
            if single:
                self.best_ckpt_path = path
            else:
                self.best_ckpt_path_dict[key] = path
            self._remove([former] if former and former != path else [])
            runner.logger.info(f'The best checkpoint with {score:0.4f} {key} at {number} {kind} is saved to {name}.')
            updated = True
        if updated and self.last_ckpt is not None:  # the latest one has to know which is the best
            self._save_checkpoint_with_step(runner, number, meta)

    def _save(self, runner, name: str, infos: dict[str, Any], pointer: str | None = None, **settings) -> bool:
        """Write a file that says ``infos`` about itself, on the main process, and tell all of them whether that worked."""
        known, outcome = runner.message_hub.runtime_info, [True]
        before = dict(known)
        runner.message_hub.update_info_dict(infos)
        if is_main_process():
            try:
                self._write(runner, name, **settings)
                if pointer:
                    write_whole(pointer, self._path(name))
            except (OSError, CheckpointError) as error:
                outcome = [False]
                print_log(
                    f'{name} is not saved: {error}. Earlier checkpoints are left as they are, training goes on, and the '
                    'next attempt is at the next interval',
                    'current',
                    logging.ERROR,
                )
        broadcast_object_list(outcome)
        if not outcome[0]:
            known.clear()
            known.update(before)
        return outcome[0]

    def _write(self, runner, name: str, **settings) -> None:
        settings.update(file_client_args=self.file_client_args, backend_args=self.backend_args)
        if not self._local:
            runner.save_checkpoint(self.out_dir, name, **settings)
            return
        with replace_whole(self._path(name)) as temporary:
            runner.save_checkpoint(self.out_dir, osp.basename(temporary), **settings)
            flush(temporary)
            check_checkpoint(temporary)
        flush(self.out_dir)

    def _path(self, name: str) -> str:
        return self.file_backend.join_path(self.out_dir, name)

    def _remove(self, paths: list[str]) -> None:
        for path in paths if is_main_process() else ():
            try:
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
            except OSError as error:
                print_log(f'{path} cannot be removed: {error}', 'current', logging.WARNING)
