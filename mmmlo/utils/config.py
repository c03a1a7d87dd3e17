"""What a config holds."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config, ConfigDict


def is_multi_level(cfg: Config) -> bool:
    """Tell whether a config trains several levels."""
    return 'levels' in (cfg.get('optim_wrapper') or {})


def named_dataloaders(cfg: Config) -> Iterator[tuple[str, ConfigDict]]:
    """Find keys and configs of all loaders: train, val, test, those of the upper levels and kNN's banks."""
    for split in ('train', 'val', 'test'):
        loop = cfg.get(f'{split}_cfg') or {}
        loaders = {f'{split}_dataloader': cfg.get(f'{split}_dataloader')}
        loaders[f'{split}_cfg.bank_dataloader'] = loop.get('bank_dataloader')
        loaders |= {f'{split}_cfg.dataloaders.{level}': own for level, own in (loop.get('dataloaders') or {}).items()}
        # A name in place of a config says that the level shares another's batches.
        yield from ((key, loader) for key, loader in loaders.items() if isinstance(loader, Mapping))


def dataloaders(cfg: Config) -> Iterator[ConfigDict]:
    """Find the configs of all loaders."""
    return (loader for _, loader in named_dataloaders(cfg))


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
