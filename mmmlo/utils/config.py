"""What a config holds."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config, ConfigDict


def is_multi_level(cfg: Config) -> bool:
    """Tell whether a config trains several levels."""
    return 'levels' in (cfg.get('optim_wrapper') or {})


def dataloaders(cfg: Config) -> Iterator[ConfigDict]:
    """Find the configs of all loaders: train, val, test, those of the upper levels and kNN's banks."""
    for split in ('train', 'val', 'test'):
        if cfg.get(f'{split}_dataloader') is not None:
            yield cfg[f'{split}_dataloader']
        loop = cfg.get(f'{split}_cfg') or {}
        if loop.get('bank_dataloader') is not None:
            yield loop['bank_dataloader']
        yield from (loader for loader in (loop.get('dataloaders') or {}).values() if not isinstance(loader, str))


def dataset_leaves(dataset: Mapping[str, Any], key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Find the data sets within wrappers such as ``RepeatDataset`` and ``ConcatDataset``.

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
