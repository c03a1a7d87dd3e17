"""Check the files that a dataset's config names, before the dataset is built."""

import inspect
import os.path as osp
from collections.abc import Mapping
from typing import Any

from mmpretrain.datasets import ImageNet

from mmmlo.registry import DATASETS
from mmmlo.utils.errors import MissingFileError

__all__ = ['DatasetFolderError', 'check_dataset_folder']


class DatasetFolderError(MissingFileError):
    """A folder or annotation file that a config names is not there."""


def check_dataset_folder(dataset: Mapping[str, Any], key: str = 'dataset') -> None:
    """Check that the folders and the annotation file that a dataset's config names are there.

    mmpretrain's datasets answer a wrong path with a bare ``[Errno 2]`` out of a directory scan, without its key. Wrappers
    are looked into; remote paths and datasets that download what is missing are left alone.

    Raises:
        DatasetFolderError: A path is missing; the message names its key, below that of the config.
    """
    if isinstance(dataset.get('dataset'), Mapping):
        return check_dataset_folder(dataset['dataset'], f'{key}.dataset')
    if isinstance(dataset.get('datasets'), (list, tuple)):
        for i, inner in enumerate(dataset['datasets']):
            if isinstance(inner, Mapping):
                check_dataset_folder(inner, f'{key}.datasets[{i}]')
        return

    kind = dataset.get('type')
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(dataset.get('_scope_')) as registry:  # as `build` will look it up
            kind = registry.get(kind)
    download = inspect.signature(kind).parameters.get('download') if kind is not None else None
    if download is not None and dataset.get('download', download.default):
        return
    root = osp.expanduser(dataset.get('data_root') or '')
    if root:
        _require(root, f'{key}.data_root', 'folder')
    prefixes = dataset.get('data_prefix') or {}
    for name, prefix in ({'': prefixes} if isinstance(prefixes, str) else prefixes).items():
        if isinstance(prefix, str) and prefix:
            _require(osp.join(root, osp.expanduser(prefix)), f'{key}.data_prefix.{name}'.rstrip('.'), 'folder')
    if dataset.get('ann_file'):
        _require(osp.join(root, osp.expanduser(dataset['ann_file'])), f'{key}.ann_file', 'file')
    elif root and not prefixes and inspect.isclass(kind) and issubclass(kind, ImageNet) and dataset.get('split'):
        _require(osp.join(root, dataset['split']), f'{key}.data_root', 'folder')


def _require(path: str, key: str, kind: str) -> None:
    if '://' in path or osp.exists(path):
        return
    place = path if osp.isabs(path) else f'{path} (that is, {osp.abspath(path)})'
    raise DatasetFolderError(
        f'`{key}`: there is no {kind} {place}. Put the data there, or set `{key}` to the {kind} that holds it.'
    )
