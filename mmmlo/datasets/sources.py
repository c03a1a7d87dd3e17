"""Which image a sample is: its file, or its place in an archive.

Two samples are the same image if their sources are equal, whatever wrappers, pipelines and subsets lie between. A copy
of a file under another name counts as another image.
"""

import hashlib
import logging
import os
import os.path as osp
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.dataset import ClassBalancedDataset, RepeatDataset
from mmengine.logging import print_log
from mmengine.runner.runner import _SlicedDataset
from mmpretrain.datasets import MNIST, BaseDataset, CustomDataset
from torch.utils.data import ConcatDataset, Subset

from mmmlo.datasets.in_memory_images import InMemoryImages
from mmmlo.datasets.seeding import SeededDataset
from mmmlo.datasets.split_dataset import SplitDataset

__all__ = ['SourceIndex', 'archive_split', 'data_fingerprint', 'leaves', 'sample_sources']


def sample_sources(dataset: Any) -> set[str]:
    """Name the image behind every sample of a dataset, or of wrappers around datasets; a repeated sample counts once.

    A file is named by its real path, and an image of an archive by archive, split and index, whatever ``indices=`` says, as
    in ``CIFAR10:/data/cifar10:train#123``. A dataset that makes images in memory can name each under the key ``source`` of
    its annotations.
    A dataset in memory that was cut by ``get_subset`` or ``KFoldDataset`` forgets its indices: use ``indices=`` or
    ``SplitDataset``.
    """
    return SourceIndex().names(dataset)


class SourceIndex:
    """Find the images that datasets share.

    It reads the annotations of each distinct base dataset once, however many wrappers cut it (two bases are the same if
    their stored annotations are, byte for byte): a few seconds for ImageNet's 1.28 million.
    """

    def __init__(self) -> None:
        self._read: list[tuple[Any, list[str]]] = []
        self._folders: dict[str, tuple[str, set[str]]] = {}

    def shared(self, first: Any, second: Any) -> set[str]:
        """Name the images that two datasets share."""
        return self.names(first) & self.names(second)

    def names(self, dataset: Any) -> set[str]:
        """Name the images of a dataset; see :func:`sample_sources`."""
        return {names[i] for leaf, indices in leaves(dataset) for names in [self._leaf_names(leaf)] for i in indices}

    def _leaf_names(self, leaf: Any) -> list[str]:
        """Name the samples of a dataset that wraps nothing."""
        for other, names in self._read:
            if _same_annotations(leaf, other):
                return names
        kind = type(leaf).__name__
        if not hasattr(leaf, 'get_data_info'):
            print_log(
                f'{kind} has no `get_data_info`: its images are told apart by their place in this one object, so images '
                'that it shares with another dataset cannot be found.',
                'current',
                logging.WARNING,
            )
            names = [f'{kind}@{id(leaf)}#{i}' for i in range(len(leaf))]
        elif len(leaf) and not {'source', 'img_path'} & set(leaf.get_data_info(0)):  # in memory, without names
            archive = _archive(leaf)
            names = [f'{archive}#{place}' for place in _places_in_archive(leaf)]
        else:
            infos = map(leaf.get_data_info, range(len(leaf)))
            names = [str(info['source']) if 'source' in info else self._real(info['img_path']) for info in infos]
        self._read.append((leaf, names))
        return names

    def _real(self, path: str) -> str:
        """The real path of a file, with one look at each folder instead of one at each file."""
        if '://' in path:
            return path
        folder, name = osp.split(path)
        if folder not in self._folders:
            try:
                with os.scandir(folder or '.') as entries:
                    links = {entry.name for entry in entries if entry.is_symlink()}
            except OSError:  # the loader will say that the folder is not there
                links = set()
            self._folders[folder] = osp.realpath(folder), links
        real_folder, links = self._folders[folder]
        return osp.realpath(path) if name in links else osp.join(real_folder, name)


def data_fingerprint(dataset: Any) -> dict[str, Any]:
    """Hash the annotations of the samples of a dataset, in their order.

    These are paths as the config has them, labels, and for images in memory, such as CIFAR's, their pixels. Files are not
    opened: about a second for ImageNet.

    Returns:
        dict[str, Any]: ``dataset``, the class of the dataset inside all wrappers; ``images``, their number;
        ``sha256``, None where a dataset does not say what it holds.
    """
    digest, images, kinds, known = hashlib.sha256(), 0, [], True
    for leaf, indices in leaves(dataset):
        kinds.append(type(leaf).__name__)
        images += len(indices)
        if getattr(leaf, 'serialize_data', False) and hasattr(leaf, 'data_bytes'):  # records one after another
            ends = leaf.data_address
            if np.array_equal(indices, np.arange(len(ends))):
                digest.update(leaf.data_bytes)
                continue
            for i in indices:
                digest.update(leaf.data_bytes[0 if i == 0 else int(ends[i - 1]):int(ends[i])])
        elif hasattr(leaf, 'get_data_info'):
            for i in indices:
                digest.update(pickle.dumps(leaf.get_data_info(int(i)), protocol=4))
        else:
            known = False
    return dict(dataset=' + '.join(dict.fromkeys(kinds)), images=images, sha256=digest.hexdigest() if known else None)


def leaves(dataset: Any, indices: np.ndarray | None = None) -> Iterator[tuple[Any, np.ndarray]]:
    """Look through wrappers for the datasets that hold the samples, all or those of ``indices``.

    Yields:
        tuple[Any, np.ndarray]: A dataset that wraps nothing, and the indices of its samples that are used: all, where a
        wrapper is unknown.
    """
    # First, because these hand every attribute through to the dataset inside.
    if isinstance(dataset, (SeededDataset, InMemoryImages)):
        yield from leaves(dataset.dataset, indices)
        return
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    if isinstance(dataset, _SlicedDataset):
        size = min(len(dataset), len(dataset._dataset))
        yield from leaves(dataset._dataset, np.arange(size) if indices is None else indices)
    elif isinstance(dataset, (SplitDataset, Subset)):
        chosen = np.asarray(dataset.indices, dtype=np.int64)
        yield from leaves(dataset.dataset, chosen if indices is None else chosen[indices])
    elif isinstance(dataset, RepeatDataset):
        yield from leaves(dataset.dataset, None if indices is None else np.unique(indices % len(dataset.dataset)))
    elif isinstance(dataset, ClassBalancedDataset):
        chosen = np.asarray(dataset.repeat_indices, dtype=np.int64)
        yield from leaves(dataset.dataset, np.unique(chosen if indices is None else chosen[indices]))
    elif isinstance(dataset, ConcatDataset):
        for inner, end in zip(dataset.datasets, dataset.cumulative_sizes):
            if indices is None:
                yield from leaves(inner)
            else:
                start = end - len(inner)  # type: ignore[arg-type]
                yield from leaves(inner, indices[(indices >= start) & (indices < end)] - start)
    elif hasattr(dataset, 'datasets') or hasattr(dataset, 'dataset'):
        for inner in dataset.datasets if hasattr(dataset, 'datasets') else [dataset.dataset]:
            yield from leaves(inner)
    else:
        yield dataset, np.arange(len(dataset)) if indices is None else indices


def archive_split(dataset: Any) -> str | None:
    """Get the split that a dataset reads, by its own account; None if it has none."""
    if isinstance(dataset, MNIST):
        # Whatever its `split` says, mmpretrain's MNIST chooses the files by `test_mode`.
        return 'test' if dataset.test_mode else 'train'
    split = getattr(dataset, 'split', None)
    return split if isinstance(split, str) and split else None


def _archive(leaf: Any) -> str:
    """Name the archive and the split that a dataset in memory comes from; a subclass of CIFAR10 reads that of CIFAR10."""
    theirs = (kind for kind in type(leaf).__mro__ if kind.__module__.startswith('mmpretrain.'))
    known = next((kind for kind in theirs if kind not in (BaseDataset, CustomDataset)), type(leaf))
    prefixes = getattr(leaf, 'data_prefix', None) or {}
    root = next((prefix for prefix in prefixes.values() if prefix), '') or getattr(leaf, 'data_root', '') or ''
    return f'{known.__name__}:{osp.realpath(root) if root else ""}:{archive_split(leaf) or ""}'


def _places_in_archive(leaf: Any) -> np.ndarray:
    """The index in the archive of each sample of a dataset in memory, which ``indices=`` may have cut."""
    chosen = getattr(leaf, '_indices', None)
    if chosen is None or isinstance(chosen, int) and chosen == len(leaf):
        return np.arange(len(leaf))
    # Only the archive knows what the rest means: it may be shorter than asked for, or counted from the end.
    places = np.arange(len(leaf.load_data_list()))
    if isinstance(chosen, int):
        return places[:chosen] if chosen >= 0 else places[chosen:]
    return places[np.asarray(chosen, dtype=np.int64)]


def _same_annotations(first: Any, second: Any) -> bool:
    """Whether two datasets hold the same samples in the same order, by their serialized annotations."""
    if first is second:
        return True
    if type(first) is not type(second) or not all(getattr(d, 'serialize_data', False) for d in (first, second)):
        return False
    return (
        archive_split(first) == archive_split(second)
        and first.data_prefix == second.data_prefix
        and np.array_equal(first._indices, second._indices)
        and np.array_equal(first.data_bytes, second.data_bytes)
    )
