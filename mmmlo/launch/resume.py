"""Which checkpoint a run goes on from."""

import glob
import logging
import os.path as osp
import zipfile
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import find_latest_checkpoint

from mmmlo.utils.checkpoints import CheckpointError, check_checkpoint, read_content

__all__ = ['find_resumable', 'named_checkpoint', 'resolve_resume']

# What a run cannot go on without; checkpoints of the best epochs lack the optimizer.
_NEEDED = ('meta', 'state_dict', 'message_hub', 'optimizer')


def resolve_resume(cfg: Config, resume: str | None) -> None:
    """Write into the config which checkpoint the run goes on from.

    Args:
        cfg (Config): The config, changed in place; ``cfg.resume`` without ``cfg.load_from`` is as good as 'auto'.
        resume (str, optional): What ``--resume`` says: a checkpoint, or 'auto' for the newest in the work dir. A run that
            has none yet begins as without it.

    Raises:
        CheckpointError: The checkpoint is not whole, or there are some and none is.
    """
    if resume is None and cfg.get('resume') and not cfg.get('load_from'):
        resume = 'auto'
    if resume is None:
        return
    if resume != 'auto':
        _check_resumable(resume)
    path = find_resumable(cfg.work_dir) if resume == 'auto' else resume
    if path is None:
        print_log(f'{cfg.work_dir} has no checkpoint yet: the run begins', 'current')
        cfg.resume = False
    else:
        cfg.resume, cfg.load_from = True, path


def find_resumable(work_dir: str) -> str | None:
    """Find the newest checkpoint of a run that it can go on from; None if there is none yet.

    That is the one that ``last_checkpoint`` names. If it is torn, or not there, it is the one of the most iterations that
    is whole; the log says so.

    Raises:
        CheckpointError: There are checkpoints, and none of them is whole.
    """
    reasons: list[str] = []
    for path in _candidates(work_dir, reasons):
        try:
            _check_resumable(path)
        except CheckpointError as error:
            reasons.append(str(error))
            continue
        if path != named_checkpoint(work_dir):
            text = '; '.join([*reasons, f'going on from {path}, the newest checkpoint that is whole'])
            print_log(text, 'current', logging.WARNING)
        return path
    if reasons:
        raise CheckpointError(
            f'{work_dir} has no checkpoint to go on from:\n  ' + '\n  '.join(dict.fromkeys(reasons))
            + '\nTo begin anew, take another --work-dir, or leave --resume out'
        )
    return None


def _candidates(work_dir: str, reasons: list[str]) -> Iterator[str]:
    """The named checkpoint, then the others, the one of the most iterations first; what cannot be read adds a reason."""
    named = named_checkpoint(work_dir)
    folders = {osp.abspath(work_dir)}
    if named is not None:
        yield named
        folders.add(osp.dirname(osp.abspath(named)))
    found = []
    for path in (path for folder in folders for path in glob.glob(osp.join(glob.escape(folder), '*.pth'))):
        if osp.realpath(path) == osp.realpath(named or ''):
            continue
        try:
            content = read_content(path, mmap=zipfile.is_zipfile(path))
            if isinstance(content, dict) and set(_NEEDED) <= set(content):
                found.append((content['meta']['iter'], path))
        except CheckpointError as error:
            reasons.append(str(error))
    yield from (path for _, path in sorted(found, reverse=True))


def named_checkpoint(work_dir: str) -> str | None:
    """Find the checkpoint that ``last_checkpoint`` names, also in a work dir that has been moved."""
    named = find_latest_checkpoint(work_dir) if osp.isfile(osp.join(work_dir, 'last_checkpoint')) else None
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
