"""Refuse data splits that would let one level, or the test set, leak into another, or whose labels differ in meaning."""

import os.path as osp
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from mmpretrain.datasets import ImageNet
from torch.utils.data import DataLoader

from mmmlo.datasets.folders import DatasetFolderError, check_dataset_folder
from mmmlo.datasets.sources import SourceIndex, archive_split, leaves
from mmmlo.registry import DATASETS
from mmmlo.utils.errors import DataError
from mmmlo.utils.text import format_list

__all__ = [
    'SplitOverlapError', 'check_disjoint', 'check_level_splits', 'check_same_classes', 'class_names', 'compare_class_names',
    'is_test_split', 'level_key', 'read_test_dataset'
]


class SplitOverlapError(DataError):
    """Data that must be apart is not."""


def level_key(level: str) -> str:
    """Name the config key of a level's dataset."""
    loader = 'train_dataloader' if level == 'pretrain' else f'train_cfg.dataloaders.{level}'
    return f'{loader}.dataset'


def is_test_split(dataset: Any) -> str | None:
    """Say which official test split a dataset is or holds, for example "CIFAR10(split='test')"; None if it holds none.

    A dataset says so itself: ``split='test'`` for most of mmpretrain's, the 'query' and 'gallery' of InShop, and the 'val'
    of ImageNet and the 'val2017' of COCO, on which everyone reports. A folder has none: what it shares with
    ``test_dataloader`` counts there.
    """
    for leaf, indices in leaves(dataset):
        split = archive_split(leaf)
        held_out: tuple[str, ...] = ('query', 'gallery')
        if isinstance(leaf, ImageNet):  # it keeps no `split`, but its folder and its annotation file are named after it
            names = (osp.basename(leaf.img_prefix.rstrip('/')), osp.splitext(osp.basename(leaf.ann_file or ''))[0])
            held_out = ('val', 'test')
            split = next((name for name in names if name in held_out), None)
        elif type(leaf).__name__ == 'CocoDataset':  # mmdet's
            split = next((name for name in ('val2017', 'test2017', 'test-dev2017') if name in leaf.ann_file), None)
            held_out += ('val2017',)
        if len(indices) and split and (split in held_out or split.startswith('test')):
            return f'{type(leaf).__name__}(split={split!r})'
    return None


def check_disjoint(first: Any, second: Any, keys: tuple[str, str], advice: str, index: SourceIndex | None = None) -> None:
    """Check that two datasets share no image; a SplitOverlapError names their config keys and closes with the advice.

    An ``index`` that is reused over several checks reads each base dataset once.
    """
    shared = (index or SourceIndex()).shared(first, second)
    if shared:
        raise SplitOverlapError(
            f'`{keys[0]}` and `{keys[1]}` share {len(shared)} images, for example {min(shared)}. {advice}'
        )


def class_names(dataset: Any) -> list[str] | None:
    """Get the names of a dataset's classes in the order of their labels; None where it names none."""
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    return None if classes is None else list(map(str, classes))


def check_same_classes(datasets: Mapping[str, Any]) -> None:
    """Check that names and order of the classes are the same in all datasets, given by their config keys.

    Of folders of classes, the folders count too, because mmpretrain's labels follow them and not ``classes``. Datasets that
    name no classes are left alone.

    Raises:
        DataError: Two of them have different classes.
    """
    compare_class_names({key: class_names(dataset) for key, dataset in datasets.items()})
    folders = {}
    for key, dataset in datasets.items():
        while hasattr(dataset, 'dataset'):
            dataset = dataset.dataset
        folders[key] = list(getattr(dataset, 'folder_to_idx', None) or ()) or None
    compare_class_names(folders)


def compare_class_names(classes: Mapping[str, list[str] | None]) -> None:
    """Check that lists of class names, by config key, are the same; None is left alone. See :func:`check_same_classes`."""
    named = {key: names for key, names in classes.items() if names is not None}
    first = next(iter(named), '')
    second = next((key for key in named if named[key] != named[first]), None)
    if second is None:
        return
    lacks = [
        f'`{key}` lacks {format_list(absent)}'
        for key, other in ((first, second), (second, first))
        if (absent := [name for name in named[other] if name not in named[key]])
    ]
    if not lacks:
        i, *names = next((i, *pair) for i, pair in enumerate(zip(named[first], named[second])) if pair[0] != pair[1])
        lacks = [f'label {i} is {names[0]} in the one and {names[1]} in the other']
    raise DataError(
        f'`{first}` and `{second}` have different classes, so their labels do not mean the same: {" and ".join(lacks)}. '
        'Give both the same folders of classes, which may be empty in data to test on; or, with annotation files, the same '
        '`metainfo=dict(classes=[...])`.'
    )


def check_level_splits(
    datasets: Mapping[str, Any],
    disjoint: Sequence[tuple[str, str]] = (('finetune', 'masking'),),
    test_dataset: Any = None,
) -> None:
    """Check that the levels' data is disjoint where it must be, and that none of it is test data.

    D_u (``pretrain``) and D_tr (``finetune``) may be the same images. D_val (``masking``) may not share any with D_tr: it
    would reward a head that has learned its images by heart.

    Args:
        datasets (Mapping[str, Any]): The dataset of each level.
        disjoint (Sequence[tuple[str, str]]): Pairs of levels that must not share an image. Defaults to D_tr and D_val.
        test_dataset (Any, optional): The dataset of ``test_dataloader``; see :func:`read_test_dataset`.

    Raises:
        SplitOverlapError: Two levels of a pair share images, or a level holds test images.
    """
    index = SourceIndex()
    for level, dataset in datasets.items():
        reason = is_test_split(dataset)
        if reason:
            raise SplitOverlapError(
                f'`{level_key(level)}` is {reason}, an official test split, and no level may '
                'learn from test data. Cut it from the training split with `mmmlo.SplitDataset`.'
            )
    advice = (
        'Cut both from one training set with `mmmlo.SplitDataset`: the same `fractions` and `seed`, '
        "`part='train'` for one and `part='val'` for the other."
    )
    for pair in disjoint:
        if all(level in datasets for level in pair):
            first, second = pair
            check_disjoint(datasets[first], datasets[second], (level_key(first), level_key(second)), advice, index)
    advice = 'No level may learn from test data: cut it from the training split with `mmmlo.SplitDataset`.'
    for level, dataset in datasets.items() if test_dataset is not None else ():
        check_disjoint(dataset, test_dataset, (level_key(level), 'test_dataloader.dataset'), advice, index)


def read_test_dataset(runner: Any) -> Any:
    """Build the dataset of a runner's ``test_dataloader``, to compare other data with it.

    None where the config has no test data, or where its files are not on this machine: those cannot leak. The log says so.
    """
    loader = runner._test_dataloader  # a config until the test loop is built, and building that would be a waste
    if loader is None or isinstance(loader, DataLoader):
        return getattr(loader, 'dataset', None)
    cfg = loader['dataset']
    if not isinstance(cfg, Mapping):
        return cfg
    try:
        check_dataset_folder(cfg, 'test_dataloader.dataset')
    except DatasetFolderError as error:
        print_log(f'{error} Until then nobody can tell whether training data is among it.', 'current')
        return None
    return DATASETS.build(cfg)
