"""Which checkpoint a run goes on from."""

import glob
import logging
import os.path as osp
import zipfile

from mmengine.config import Config
from mmengine.logging import print_log

from mmmlo.utils.checkpoints import CheckpointError, check_checkpoint, read_content

__all__ = ['find_resumable', 'named_checkpoint', 'resolve_resume']

# What a run cannot go on without; checkpoints of the best epochs lack the optimizer.
_NEEDED = ('meta', 'state_dict', 'message_hub', 'optimizer')


def resolve_resume(cfg: Config, resume: str | None) -> None:
    """Write into the config which checkpoint the run goes on from.

    Args:
        cfg (Config): The config, changed in place; ``cfg.resume`` without ``cfg.load_from`` is as good as 'auto'.
        resume (str, optional): What ``--resume`` says: a checkpoint, or 'auto' for the newest in the work dir, if there is
            one. A run that has none yet begins as without it.

    Raises:
        CheckpointError: The checkpoint is not whole, or there are some and none is.
    """
    if resume is None and cfg.get('resume') and not cfg.get('load_from'):
        resume = 'auto'
    if resume is None:
        return
    path = find_resumable(cfg.work_dir) if resume == 'auto' else resume
    if path is None:
        print_log(f'{cfg.work_dir} has no checkpoint yet: the run begins', 'current')
        cfg.resume = False
        return
    if resume != 'auto':
        _check_resumable(path)
    cfg.resume, cfg.load_from = True, path


def find_resumable(work_dir: str) -> str | None:
    """Find the newest checkpoint of a run that it can go on from.

    That is the one that ``last_checkpoint`` names. If it is torn, or not there, it is the one of the most iterations that
    is whole; the log says so.

    Args:
        work_dir (str): The run's folder.

    Returns:
        str | None: The file; None if there is none yet.

    Raises:
        CheckpointError: There are checkpoints, and none of them is whole.
    """
    named = named_checkpoint(work_dir)
    reasons = []
    if named is not None:
        try:
            _check_resumable(named)
            return named
        except CheckpointError as error:
            reasons.append(str(error))
            print_log(f'{error}. Looking for an earlier checkpoint', 'current', logging.WARNING)
    folders = dict.fromkeys([osp.abspath(work_dir), *([osp.dirname(osp.abspath(named))] if named else [])])
    found = []
    for path in (path for folder in folders for path in glob.glob(osp.join(glob.escape(folder), '*.pth'))):
        if named is None or not osp.exists(named) or not osp.samefile(path, named):
            try:
                content = read_content(path, mmap=zipfile.is_zipfile(path))
                if isinstance(content, dict) and set(_NEEDED) <= set(content):
                    found.append((content['meta']['iter'], path))
            except CheckpointError as error:
                reasons.append(str(error))
    for iteration, path in sorted(found, reverse=True):
        try:
            _check_resumable(path)
        except CheckpointError as error:
            reasons.append(str(error))
            continue
        text = f'Going on from {path}, of iteration {iteration}, the newest checkpoint that is whole'
        print_log(text, 'current', logging.WARNING)
        return path
    if reasons:
        raise CheckpointError(
            f'{work_dir} has no checkpoint to go on from:\n  ' + '\n  '.join(dict.fromkeys(reasons))
            + '\nTo begin anew, take another --work-dir, or leave --resume out'
        )
    return None


def named_checkpoint(work_dir: str) -> str | None:
    """Find the checkpoint that ``last_checkpoint`` names, also in a work dir that has been moved."""
    pointer = osp.join(work_dir, 'last_checkpoint')
    if not osp.isfile(pointer):
        return None
    with open(pointer, encoding='utf-8', errors='replace') as file:
        named = file.read().strip()
    if not named:
        return None
    moved = osp.join(work_dir, osp.basename(named))
    return moved if '://' not in named and not osp.exists(named) and osp.exists(moved) else named


def _check_resumable(path: str) -> None:
    if '://' in path:  # not on this machine: it is read once, when the run is built
        return
    missing = [key for key in _NEEDED if key not in check_checkpoint(path)]
    if missing:
        raise CheckpointError(f'{path} cannot be resumed from: it has no {missing[0]!r}')
