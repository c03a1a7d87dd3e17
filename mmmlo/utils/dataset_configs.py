"""The data sets that a loader's config holds."""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ['dataset_leaves']


def dataset_leaves(dataset: Mapping[str, Any], key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Find the data sets within wrappers such as ``RepeatDataset`` and ``ConcatDataset``.

    Args:
        dataset (Mapping): The config of a data set or of a wrapper.
        key (str): Where it stands, for messages.

    Yields:
        tuple[str, Mapping]: Key and config of each data set that holds no other.
    """
    if isinstance(dataset.get('dataset'), Mapping):
        yield from dataset_leaves(dataset['dataset'], f'{key}.dataset')
    elif 'datasets' in dataset:
        for i, inner in enumerate(dataset['datasets']):
            yield from dataset_leaves(inner, f'{key}.datasets[{i}]')
    else:
        yield key, dataset
