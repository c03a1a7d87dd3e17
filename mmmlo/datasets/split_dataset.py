"""One part of a dataset, cut by class."""

import copy
import math
import os.path as osp
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset, force_full_init
from mmpretrain.datasets import KFoldDataset

from mmmlo.datasets.folders import check_dataset_folder
from mmmlo.datasets.labels import check_classes, read_labels
from mmmlo.datasets.stratify import stratified_parts
from mmmlo.registry import DATASETS
from mmmlo.utils.errors import DataError

__all__ = ['SplitDataset']

_MOST_REPLACEMENTS = 1000  # as in mmengine's datasets


@DATASETS.register_module()
class SplitDataset:
    """One part of a labelled dataset, cut by class with a seed.

    Parts are disjoint and together hold every image. The cut depends on the labels, ``fractions`` and ``seed`` only, so a
    config cuts D_tr and D_val from a training set like this::

        train = dict(type='CIFAR10', data_root='data/cifar10', split='train')
        d_tr = dict(type='mmmlo.SplitDataset', part='train', dataset=dict(**train, pipeline=[...]))
        d_val = dict(type='mmmlo.SplitDataset', part='val', dataset=dict(**train, pipeline=[...]))

    Args:
        dataset (dict | BaseDataset): The dataset to cut, or its config. Repeating wrappers go around a split, not into it.
        part (str): The part that this dataset holds; a key of ``fractions``. Defaults to 'train'.
        fractions (dict[str, float]): The share of every part. They sum to 1. Defaults to ``dict(train=0.8, val=0.2)``.
        seed (int): Seed of the cut. Defaults to 0.
        lazy_init (bool): Whether to wait with reading the labels until they are needed. Defaults to False.

    Raises:
        DatasetFolderError: The folder of the dataset is not there.
        DataError: A part or fractions that cannot be, no labels, or a class with fewer images than there are parts.
    """

    def __init__(
        self,
        dataset: Any,
        part: str = 'train',
        fractions: Mapping[str, float] | None = None,
        seed: int = 0,
        lazy_init: bool = False,
    ) -> None:
        self.fractions = dict(fractions or {'train': 0.8, 'val': 0.2})
        _check_fractions(self.fractions)
        if part not in self.fractions:
            raise DataError(
                f'`part` of SplitDataset must be one of the keys of `fractions`, '
                f'{", ".join(map(repr, self.fractions))}, not {part!r}.'
            )
        if not isinstance(seed, int):
            raise DataError(
                f'`seed` of SplitDataset must be an integer, not {seed!r}: without a fixed seed the '
                "parts would not be each other's complement."
            )
        self.part = part
        self.seed = seed
        if isinstance(dataset, Mapping):
            check_dataset_folder(dataset)
            dataset = DATASETS.build(dataset)
        if isinstance(dataset, (RepeatDataset, ClassBalancedDataset)):
            raise DataError(
                f'`dataset` of SplitDataset is a {type(dataset).__name__}, whose copies of an image '
                f'would land in several parts. Wrap the split instead: {type(dataset).__name__}(dataset='
                'SplitDataset(...)).'
            )
        self.dataset = dataset
        self._metainfo = dataset.metainfo
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        """dict: A copy of the meta information of the dataset."""
        return copy.deepcopy(self._metainfo)

    @property
    def CLASSES(self) -> tuple[str, ...] | None:
        """tuple[str, ...] | None: The names of the classes, as mmpretrain's datasets have them."""
        return self._metainfo.get('classes')

    def full_init(self) -> None:
        """Read the labels and cut."""
        if self._fully_initialized:
            return
        self.dataset.full_init()
        self._metainfo = self.dataset.metainfo
        labels = read_labels(self.dataset)
        check_classes(labels, self.CLASSES, _place(self.dataset), least=len(self.fractions))
        self._indices = stratified_parts(labels, self.fractions, self.seed)[self.part]
        self._labels = labels[self._indices]
        self._fully_initialized = True

    @property
    @force_full_init
    def indices(self) -> np.ndarray:
        """np.ndarray: The indices of this part in the whole dataset, ascending, int64."""
        return self._indices

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Get the annotation of a sample of this part; ``sample_idx`` counts in the whole dataset."""
        return self.dataset.get_data_info(int(self._indices[idx]))

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """Get the class of a sample of this part, as a list of one."""
        return [int(self._labels[idx])]

    @force_full_init
    def get_gt_labels(self) -> np.ndarray:
        """Get the class of every sample of this part, N, int64."""
        return self._labels.copy()

    @force_full_init
    def __len__(self) -> int:
        return len(self._indices)

    @force_full_init
    def __getitem__(self, idx: int) -> Any:
        # mmengine's datasets replace an image that their pipeline drops by any of their own, also of the other parts.
        for _ in range(_MOST_REPLACEMENTS):
            data = self._prepare(self.dataset, int(self._indices[idx]))
            if data is not None:
                return data
            idx = np.random.randint(len(self))
        raise DataError(
            f'{_place(self.dataset)}: the pipeline dropped {_MOST_REPLACEMENTS} images of the part {self.part!r} in a row'
        )

    @classmethod
    def _prepare(cls, dataset: Any, idx: int) -> Any:
        """A sample, or None if the pipeline of the dataset drops it."""
        if isinstance(dataset, ConcatDataset):
            which, inner = dataset._get_ori_dataset_idx(idx)
            return cls._prepare(dataset.datasets[which], inner)
        if isinstance(dataset, KFoldDataset):
            return cls._prepare(dataset.dataset, idx)
        if hasattr(dataset, 'prepare_data') and not getattr(dataset, 'test_mode', False):
            return dataset.prepare_data(idx)
        return dataset[idx]

    def get_subset(self, indices: Any) -> None:
        """Refuse to cut, as mmengine's own wrappers do."""
        raise NotImplementedError(
            'SplitDataset has no `get_subset`. Give `indices` to the dataset inside it, or cut '
            'another part with `fractions`.'
        )

    get_subset_ = get_subset

    def __repr__(self) -> str:
        size = f'{len(self)} images, ' if self._fully_initialized else ''
        return (
            f'{type(self).__name__}({size}part={self.part!r}, fractions={self.fractions}, seed={self.seed}, '
            f'dataset={type(self.dataset).__name__})'
        )


def _check_fractions(fractions: dict[str, float]) -> None:
    if any(
        isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1 for share in fractions.values()
    ):
        raise DataError(f'`fractions` of SplitDataset must be numbers above 0 and at most 1, not {fractions}.')
    total = sum(fractions.values())
    if not math.isclose(total, 1, abs_tol=1e-6):
        raise DataError(f'`fractions` of SplitDataset must sum to 1, but {fractions} sum to {total:g}.')


def _place(dataset: Any) -> str:
    """The folder or file by which a user knows a dataset."""
    prefixes = getattr(dataset, 'data_prefix', None) or {}
    place = getattr(dataset, 'ann_file', '') or prefixes.get('img_path') or getattr(dataset, 'data_root', '')
    return f'{type(dataset).__name__} in {osp.normpath(place)}' if place else type(dataset).__name__
