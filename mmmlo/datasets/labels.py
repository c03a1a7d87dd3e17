"""Read the labels of a dataset, and check them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmmlo.utils.errors import DataError
from mmmlo.utils.text import format_list

__all__ = ['check_classes', 'read_labels']


def read_labels(dataset: Any) -> np.ndarray:
    """Read the class index of every sample of a dataset in mmengine's style, N, int64.

    ``get_gt_labels()``, ``get_data_info(i)['gt_label']`` or ``get_cat_ids(i)`` will do. No image is read: one pass over the
    annotations, about five seconds for ImageNet's 1.28 million.

    Raises:
        DataError: The dataset has no labels, or not exactly one for each image.
    """
    name = type(dataset).__name__
    try:
        if hasattr(dataset, 'get_gt_labels'):
            labels = list(dataset.get_gt_labels())
        else:
            labels = [_one_label(dataset, i) for i in range(len(dataset))]
    except (KeyError, NotImplementedError, AttributeError) as error:
        raise DataError(
            f'{name} has no labels, and a stratified split needs one class for each image. Use a '
            'labelled dataset (for `CustomDataset`, `with_label=True`).'
        ) from error
    if not labels:
        raise DataError(f'{name} holds no image. Check its `data_root`, `data_prefix` and `ann_file`.')
    if any(np.size(label) != 1 for label in labels):
        raise DataError(
            f'{name} has images with no class or with several, and a stratified split needs exactly one '
            'class for each image.'
        )
    return np.array([int(np.reshape(label, ())) for label in labels], dtype=np.int64)


def _one_label(dataset: Any, index: int) -> Any:
    info = dataset.get_data_info(index)
    return info['gt_label'] if 'gt_label' in info else dataset.get_cat_ids(index)


def check_classes(labels: np.ndarray, classes: Sequence[str] | None, where: str, least: int = 1) -> None:
    """Check that every class of a dataset has images.

    Args:
        labels (np.ndarray): Class index of every sample, N.
        classes (Sequence[str] | None): The names of the classes; None where a dataset does not name them, for those that
            occur.
        where (str): The config key or the folder to name in the error.
        least (int): How many images a class needs. Defaults to 1.

    Raises:
        DataError: A class has fewer than ``least`` images, or a label stands for no class.
    """
    if classes is None:
        names, counts = np.unique(labels, return_counts=True)
    else:
        wrong = labels[(labels < 0) | (labels >= len(classes))]
        if len(wrong):
            raise DataError(
                f'{where}: an image has the label {wrong[0]}, but there are {len(classes)} classes, '
                f'numbered from 0 to {len(classes) - 1}. Correct the labels, or name every class in `classes`.'
            )
        names, counts = np.asarray(classes), np.bincount(labels, minlength=len(classes))
    empty = [str(name) for name in names[counts == 0]]
    if empty:
        raise DataError(
            f'{where}: no image for {_named(empty)}. Put images there, or take it out of the classes '
            '(for a dataset of folders: delete the empty folder).'
        )
    few = [f'{name} ({count})' for name, count in zip(names, counts) if count < least]
    if few:
        raise DataError(
            f'{where}: too few images of {_named(few)}. Each class needs at least {least}, one for each '
            'part. Add images, leave the class out, or cut fewer parts.'
        )


def _named(names: list[str]) -> str:
    return ('class ' if len(names) == 1 else 'classes ') + format_list(names, 5)
