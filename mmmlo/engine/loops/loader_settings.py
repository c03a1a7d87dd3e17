"""Settings that one dataloader's config takes over from another's."""

import copy
from collections.abc import Iterable, Mapping

from torch.utils.data import DataLoader

_BUILT = ('batch_size', 'num_workers', 'collate_fn')
_SETTINGS = (*_BUILT, 'persistent_workers', 'pin_memory', 'prefetch_factor', 'sampler')


def with_settings_of(source: DataLoader | Mapping, cfg: Mapping, more: Iterable[str] = ()) -> dict:
    """Fill a copy of a loader's config with what another says, or a built loader whose sampler belongs to its dataset.

    ``more`` are further keys to take over, such as 'drop_last'.
    """
    filled = copy.deepcopy(dict(cfg))
    if isinstance(source, DataLoader):
        source = {name: getattr(source, name) for name in _BUILT}
    for name in (*_SETTINGS, *more):
        if name in source and not (name == 'batch_size' and 'batch_sampler' in filled):
            filled.setdefault(name, copy.deepcopy(source[name]))
    if not filled.get('num_workers'):  # PyTorch refuses both without workers.
        filled.pop('persistent_workers', None)
        filled.pop('prefetch_factor', None)
    return filled
