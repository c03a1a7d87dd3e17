"""One part of a dataset, cut by class."""

import copy
import math
import os.path as osp
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.logging import print_log

from mmmlo.datasets.folders import check_dataset_folder
from mmmlo.datasets.labels import check_classes, read_label_sets
from mmmlo.registry import DATASETS
from mmmlo.utils.errors import DataError

__all__ = ['SplitDataset', 'stratified_parts']

_MOST_REPLACEMENTS = 1000  # as in mmengine's datasets


@DATASETS.register_module()
class SplitDataset:
    """One part of a dataset, cut by class with a seed; where images have several labels, maps or boxes, at random.

    Parts are disjoint and together hold every image. The cut depends on the labels, ``fractions`` and ``seed`` only, so a
    config cuts D_tr and D_val by ``part='train'`` and ``part='val'`` of one training set, with pipelines of their own.

    Args:
        dataset (dict | BaseDataset): The dataset to cut, or its config. Repeating wrappers go around a split, not into it.
        part (str): A key of ``fractions``. Defaults to 'train'.
        fractions (dict[str, float]): The share of every part. They sum to 1. Defaults to ``dict(train=0.8, val=0.2)``.
        seed (int): Seed of the cut. Defaults to 0.
        by_class (bool): False cuts at random, as images without labels need. Defaults to True.

    Raises:
        DataError: A part or fractions that cannot be, no image or label, or a class with fewer images than there are parts.
    """

    def __init__(
        self,
        dataset: Any,
        part: str = 'train',
        fractions: Mapping[str, float] | None = None,
        seed: int = 0,
        by_class: bool = True,
    ) -> None:
        fractions = dict(fractions or {'train': 0.8, 'val': 0.2})
        _check_fractions(fractions)
        if part not in fractions:
            known = ', '.join(map(repr, fractions))
            raise DataError(f'`part` of SplitDataset must be one of the keys of `fractions`, {known}, not {part!r}.')
        if not isinstance(seed, int):
            raise DataError(
                f'`seed` of SplitDataset must be an integer, not {seed!r}: without a fixed seed the '
                "parts would not be each other's complement."
            )
        if isinstance(dataset, Mapping):
            check_dataset_folder(dataset)
            dataset = DATASETS.build(dataset)
        if isinstance(dataset, (RepeatDataset, ClassBalancedDataset)):
            kind = type(dataset).__name__
            raise DataError(
                f'`dataset` of SplitDataset is a {kind}, whose copies of an image would land in several parts. Wrap the '
                f'split instead: {kind}(dataset=SplitDataset(...)).'
            )
        dataset.full_init()
        self.dataset = dataset
        self.part = part
        self.CLASSES: tuple[str, ...] | None = dataset.metainfo.get('classes')
        # Maps have a label for each pixel, and boxes one each; the images have none.
        of_parts = len(dataset) and {'seg_map_path', 'instances'} & set(dataset.get_data_info(0))
        labels = [[]] * len(dataset) if of_parts or not by_class else read_label_sets(dataset)
        if isinstance(labels, np.ndarray):
            check_classes(labels, self.CLASSES, _place(dataset), least=len(fractions))
        else:
            print_log(f'{_place(dataset)}: images have no label or several, so the cut is not by class', 'current')
        strata = labels if isinstance(labels, np.ndarray) else [0] * len(labels)
        # Indices of this part in the whole dataset, ascending, int64.
        self.indices = stratified_parts(strata, fractions, seed)[part]
        self._labels = [labels[i] for i in self.indices]

    @property
    def metainfo(self) -> dict:
        """dict: A copy of the meta information of the dataset."""
        return copy.deepcopy(self.dataset.metainfo)

    def full_init(self) -> None:
        """Do nothing: mmengine calls it, and all is read."""

    def get_data_info(self, idx: int) -> dict:
        """Get the annotation of a sample of this part; ``sample_idx`` counts in the whole dataset."""
        return self.dataset.get_data_info(int(self.indices[idx]))

    def get_cat_ids(self, idx: int) -> list[int]:
        """Get the classes of a sample of this part."""
        return [int(label) for label in np.reshape(self._labels[idx], -1)]

    def get_gt_labels(self) -> np.ndarray:
        """Get the class of every sample of this part, N, int64; a ValueError where there are several an image."""
        return np.array(self._labels)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, idx: int) -> Any:
        # mmengine's datasets replace an image that their pipeline drops by any of their own, also of the other parts.
        for _ in range(_MOST_REPLACEMENTS):
            data = self._prepare(self.dataset, int(self.indices[idx]))
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
        if hasattr(dataset, 'prepare_data') and not getattr(dataset, 'test_mode', False):
            return dataset.prepare_data(idx)
        return dataset[idx]


def _check_fractions(fractions: dict[str, float]) -> None:
    shares = fractions.values()
    if not all(isinstance(share, (int, float)) and share > 0 for share in shares):
        raise DataError(f'`fractions` of SplitDataset must be numbers above 0, not {fractions}.')
    if not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise DataError(f'`fractions` of SplitDataset must sum to 1, but {fractions} sum to {sum(shares):g}.')


def _place(dataset: Any) -> str:
    """The folder or file by which a user knows a dataset."""
    prefixes = getattr(dataset, 'data_prefix', None) or {}
    place = getattr(dataset, 'ann_file', '') or prefixes.get('img_path') or getattr(dataset, 'data_root', '')
    return f'{type(dataset).__name__} in {osp.normpath(place)}' if place else type(dataset).__name__


def stratified_parts(labels: Sequence[int] | np.ndarray, fractions: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Cut samples into named parts, disjoint and whole, in which every class appears and keeps its share.

    A recorded split has to outlive upgrades, so it draws from ``numpy.random.RandomState``, whose stream is frozen.
    scikit-learn's splitters cut in two, may leave a rare class out, and do not promise the same cut in the next release.

    Args:
        labels (Sequence[int] | np.ndarray): One class index a sample, N; each at least as often as there are parts.
        fractions (Mapping[str, float]): The share of each part, in order. They are positive and sum to 1.
        seed (int): Seed of the cut.

    Returns:
        dict[str, np.ndarray]: The indices of each part, ascending.
    """
    labels = np.asarray(labels)
    shares = np.array(list(fractions.values()), dtype=np.float64)
    rng = np.random.RandomState(seed)

    by_class = np.argsort(labels, kind='stable')
    starts = np.flatnonzero(np.diff(labels[by_class])) + 1
    pieces: list[list[np.ndarray]] = [[] for _ in shares]
    owed = np.zeros(len(shares))  # what rounding has so far kept from each part
    for members in np.split(by_class, starts):
        counts = _counts(len(members), shares, owed)
        for part, piece in zip(pieces, np.split(rng.permutation(members), np.cumsum(counts)[:-1])):
            part.append(piece)
    return {name: np.sort(np.concatenate(part)).astype(np.int64) for name, part in zip(fractions, pieces)}


def _counts(size: int, shares: np.ndarray, owed: np.ndarray) -> np.ndarray:
    """Share out ``size`` samples of one class; ``owed`` is updated in place."""
    exact = size * shares
    counts = np.floor(exact).astype(int)
    owed += exact - counts
    for _ in range(size - counts.sum()):
        part = int(owed.argmax())
        counts[part] += 1
        owed[part] -= 1
    while size >= len(counts) and counts.min() == 0:
        giver, taker = int(counts.argmax()), int(counts.argmin())
        counts[giver] -= 1
        counts[taker] += 1
        owed[giver] += 1
        owed[taker] -= 1
    return counts
