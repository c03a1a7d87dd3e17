"""What goes wrong with data while a run is built or goes on, in one line that names the config's key."""

import signal
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import path as osp

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import find_latest_checkpoint

from mmmlo.datasets import DatasetFolderError, check_dataset_folder
from mmmlo.utils.config import dataset_leaves, named_dataloaders
from mmmlo.utils.errors import DataError, MmmloError
from mmmlo.utils.text import describe_error

__all__ = ['LostWorkerError', 'data_errors']

# Parts of the names of modules that read data, in all frameworks.
_MODULES = ('.dataset', '.transforms', 'torch.utils.data')


class LostWorkerError(MmmloError):
    """A worker of a loader that was killed, most often for its memory."""


@contextmanager
def data_errors(cfg: Config, split: str = '') -> Iterator[None]:
    """Raise errors of data sets and transforms of any framework, also out of workers, as those of the user's data.

    Args:
        cfg (Config): The config of what is built and run.
        split (str): 'test' if nothing else is. Defaults to ''.

    Raises:
        DataError: An image or annotation is not there, cannot be read, or is not as the config says.
        LostWorkerError: A worker was killed.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, MmmloError) and not isinstance(error, DatasetFolderError):
            raise
        try:
            found = _explain(error, cfg, split)
        except RuntimeError as late:  # PyTorch's own, of a lost worker, may come while a broken connection is looked at
            found = _explain(late, cfg, split)
        if found is None:
            raise
        raise found from error


def _explain(error: Exception, cfg: Config, split: str) -> MmmloError | None:
    if _is_of_lost_worker(error):
        # PyTorch's handler would raise once more while this process ends.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        last = find_latest_checkpoint(cfg.work_dir)
        kept = f'--resume goes on from {last}' if last else 'There is no checkpoint yet'
        return LostWorkerError(
            f'a worker of a loader was lost ({describe_error(error).rstrip(".")}). If memory was short, take fewer '
            f'num_workers or smaller batches. {kept}'
        )
    of_worker = str(error).startswith('Caught ')
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not of_worker and not any(part in frame.f_globals.get('__name__', '') for frame in frames for part in _MODULES):
        return None
    text = str(error).strip().splitlines()[-1] if of_worker else describe_error(error)
    # The key whose path is the longest part of the message, else of what the data set that is built has.
    hints = ' '.join([text, *(str(getattr(frame.f_locals.get('self'), 'data_root', '')) for frame in frames)])
    loaders = dict(named_dataloaders(cfg))
    longest, where = 0, 'the data cannot be read'
    named: dict[str, Mapping] = {}
    for loader in [key for key in loaders if key.startswith(split)]:
        for key, dataset in dataset_leaves(loaders[loader]['dataset'], f'{loader}.dataset'):
            root, prefixes = dataset.get('data_root') or '', dataset.get('data_prefix') or {}
            paths = {'data_root': root, 'ann_file': osp.join(root, dataset.get('ann_file') or '')}
            for name, prefix in (prefixes.items() if isinstance(prefixes, dict) else [('', prefixes)]):
                paths[f'data_prefix.{name}'.rstrip('.')] = osp.join(root, prefix or '')
            for name, path in paths.items():
                if path in hints and len(path) > longest:
                    longest, where, named = len(path), f'`{key}.{name}`', {key: dataset}
    try:
        if isinstance(error, FileNotFoundError):
            with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
                for key, dataset in named.items():
                    check_dataset_folder(dataset, key)
    except DatasetFolderError as absent:
        return absent
    return None if isinstance(error, MmmloError) else DataError(f'{where}: {text}')


def _is_of_lost_worker(error: Exception) -> bool:
    """Whether an error says that a loader's worker is gone, as after SIGKILL.

    PyTorch raises its own wherever the main process happens to be, so the iteration cannot be finished; or the connection
    breaks while a batch is fetched.
    """
    if str(error).startswith(('DataLoader worker', 'Pin memory thread')):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, RuntimeError | OSError | EOFError) and any(frame.name == '_try_get_data' for frame in frames)
