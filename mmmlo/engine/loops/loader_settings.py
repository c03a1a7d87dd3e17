"""Settings that one dataloader's config takes over from another's."""

import copy
from collections.abc import Iterable, Mapping

from torch.utils.data import DataLoader

_SETTINGS = (
    'batch_size',
    'num_workers',
    'persistent_workers',
    'pin_memory',
    'prefetch_factor',
    'collate_fn',
    'sampler',
)


def with_settings_of(source: DataLoader | Mapping, cfg: Mapping, more: Iterable[str] = ()) -> dict:
    """Fill what a loader's config does not say itself.

    Args:
        source (DataLoader | Mapping): The loader, or its config, to take over from. A built loader gives its batch size,
            workers and ``collate_fn`` only: its sampler belongs to its dataset.
        cfg (Mapping): The config to fill; it is not changed.
        more (Iterable[str]): Further keys to take over, such as 'drop_last'.

    Returns:
        dict: The filled config.
    """
    filled = copy.deepcopy(dict(cfg))
    if isinstance(source, DataLoader):
        source = {name: getattr(source, name) for name in ('batch_size', 'num_workers', 'collate_fn')}
    for name in (*_SETTINGS, *more):
        if name in source and not (name == 'batch_size' and 'batch_sampler' in filled):
            filled.setdefault(name, copy.deepcopy(source[name]))
    if not filled.get('num_workers'):  # PyTorch refuses both without workers.
        filled.pop('persistent_workers', None)
        filled.pop('prefetch_factor', None)
    return filled
