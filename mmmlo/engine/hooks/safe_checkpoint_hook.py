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
from mmmlo.utils.whole_file import flush, write_whole

# Endings of files that are not whole yet.
_TEMPORARY = '.tmp'


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, which loses no checkpoint that it has, and saves where the training loop stands.

    mmengine removes the oldest file, writes the new one in its place, and then its name into ``last_checkpoint``. If the
    process ends or the disk is full meanwhile, a torn file is left and one good file fewer. Here a checkpoint

    1. is written to a temporary file beside its place, and flushed to the disk;
    2. is read back: all bytes, by their checksums, and all keys;
    3. is renamed to its name, in one step;
    4. becomes that of ``last_checkpoint``, a file that is replaced in one step too;
    5. takes the place of the oldest, which is removed only now, as is the former best one.

    Where writing fails, as on a full disk, that is reported, the temporary file is removed, all others are left, and
    training goes on; the next attempt is at the next interval.

    With :class:`mmmlo.ResumableTrainLoop` and :class:`mmmlo.MultiLevelTrainLoop` a checkpoint holds, under ``train_loop``,
    the place in each loader and the random state of each process.

    Files of a remote backend are written by that backend as they are; it has to see to their being whole.

    The arguments are those of mmengine's hook.
    """

    keep_ckpt_ids: deque
    best_ckpt_path: str | None
    _local = True
    _loop_state: dict[str, Any] | None = None
    _checkpoint: dict[str, Any] | None = None
    # Iterations of the latest checkpoint that this process has saved.
    saved_iter: int | None = None

    def before_train(self, runner) -> None:
        """Find out where files go, and remove those that an earlier run could not finish."""
        super().before_train(runner)
        backend = getattr(self.file_backend, 'client', self.file_backend)
        self._local = isinstance(backend, LocalBackend)
        if not is_main_process():
            return
        if not self._local:
            print_log(
                f'Checkpoints go to {self.out_dir} by {type(backend).__name__} without being read back; on a local '
                'disk they would be',
                'current',
                logging.WARNING,
            )
            return
        for folder, names in ((self.out_dir, f'*.pth{_TEMPORARY}'), (runner.work_dir, f'last_checkpoint.*{_TEMPORARY}')):
            for path in glob.glob(osp.join(glob.escape(folder), names)):
                os.remove(path)
                print_log(f'{path} was never finished, and is removed', 'current')

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add where the training loop stands, and keep what the file has to hold."""
        if self._loop_state is not None:
            checkpoint['train_loop'] = self._loop_state
        self._checkpoint = checkpoint

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Tell the training loop where it stands."""
        if runner._resume and 'train_loop' in checkpoint and hasattr(runner.train_loop, 'load_state_dict'):
            runner.train_loop.load_state_dict(checkpoint['train_loop'])

    def save_now(self, runner, between_epochs: bool = False) -> bool:
        """Save whatever the interval is. All processes have to call it, at the end of an iteration or between epochs.

        The file is ``iter_<n>.pth``, and is removed when a later one has been written.

        Args:
            runner (Runner): The runner.
            between_epochs (bool): Whether the last epoch is counted already. Defaults to False: an iteration is about to
                be counted.

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
        hub, path = runner.message_hub, self.file_backend.join_path(self.out_dir, name)
        kept = list(self.keep_ckpt_ids) if self.max_keep_ckpts > 0 else []
        if step is not None and self.max_keep_ckpts > 0 and kept[-1:] != [step]:
            kept.append(step)
        passing = [*hub.get_info('passing_ckpts', []), *([path] if step is None else [])]
        # The file names all that is there at the time: what is removed after it, the next run removes if this one cannot.
        infos = dict(last_ckpt=path, passing_ckpts=passing) | (dict(keep_ckpt_ids=kept) if self.max_keep_ckpts > 0 else {})
        state = getattr(runner.train_loop, 'state_dict', None)
        self._loop_state = state() if state else None
        saved = self._save(
            runner,
            name,
            infos,
            resumable=True,
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
        while len(kept) > self.max_keep_ckpts > 0:
            outdated.append(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(kept.pop(0))))
        self._remove(outdated)
        hub.update_info('passing_ckpts', [old for old in passing if old == path])
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)
            hub.update_info('keep_ckpt_ids', kept)
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
            ending = '' if single else f'_{key}'
            score, best = metrics[key], runner.message_hub.get_info(f'best_score{ending}', self.init_value_map[rule])
            if score is None or not self.is_better_than[key](score, best):
                continue
            name = f'best_{key}_{self.filename_tmpl.format(number)}'.replace('/', '_')
            path = self.file_backend.join_path(self.out_dir, name)
            infos = {f'best_score{ending}': score, f'best_ckpt{ending}': path}
            settings: dict[str, Any] = dict(save_optimizer=False, save_param_scheduler=False, by_epoch=False)
            if not self._save(runner, name, infos, meta=dict(meta), **settings):
                continue
            former = self.best_ckpt_path if single else self.best_ckpt_path_dict[key]
            if single:
                self.best_ckpt_path = path
            else:
                self.best_ckpt_path_dict[key] = path
            self._remove([former] if former and former != path else [])
            runner.logger.info(f'The best checkpoint with {score:0.4f} {key} at {number} {kind} is saved to {name}.')
            updated = True
        if updated and self.last_ckpt is not None:  # the latest one has to know which is the best
            self._save_checkpoint_with_step(runner, number, meta)

    def _save(self, runner, name: str, infos: dict[str, Any], resumable: bool = False, **settings) -> bool:
        """Write a file that says ``infos`` about itself, on the main process, and tell all of them whether that worked."""
        known, outcome = runner.message_hub.runtime_info, [True]
        before = dict(known)
        runner.message_hub.update_info_dict(infos)
        if is_main_process():
            try:
                self._write(runner, name, **settings)
                if resumable:
                    path = self.file_backend.join_path(self.out_dir, name)
                    write_whole(osp.join(runner.work_dir, 'last_checkpoint'), path)
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
        places = dict(file_client_args=self.file_client_args, backend_args=self.backend_args)
        if not self._local:
            runner.save_checkpoint(self.out_dir, name, **places, **settings)
            return
        path = osp.join(self.out_dir, name)
        temporary = path + _TEMPORARY
        try:
            runner.save_checkpoint(self.out_dir, name + _TEMPORARY, **places, **settings)
            flush(temporary)
            assert self._checkpoint is not None
            if _keys(check_checkpoint(temporary)) != _keys(self._checkpoint):
                raise CheckpointError(f'{temporary} does not hold what was written to it')
            os.replace(temporary, path)
        except BaseException:
            if osp.lexists(temporary):
                os.remove(temporary)
            raise
        finally:
            self._checkpoint = None
        flush(self.out_dir)

    def _remove(self, paths: list[str]) -> None:
        if not is_main_process():
            return
        for path in paths:
            try:
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
            except OSError as error:
                print_log(f'{path} cannot be removed: {error}', 'current', logging.WARNING)


def _keys(checkpoint: dict) -> dict[str, Any]:
    """The keys of a checkpoint, and of the dicts in it."""
    return {key: set(value) if isinstance(value, dict) else None for key, value in checkpoint.items()}
