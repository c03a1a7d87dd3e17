"""A batch, and what a model was when it met it, in a file that holds no code."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement

__all__ = ['pack', 'unpack']

# Of what a file may name a class.
_PACKAGES = ('mmengine', 'mmpretrain', 'mmseg', 'mmdet', 'mmmlo')


def pack(value: Any) -> Any:
    """Turn a batch into tensors, plain values and containers of them, which PyTorch's ``weights_only`` reader takes.

    Args:
        value (Any): A batch as a dataloader gives it, with data samples of mmpretrain, mmseg or mmdet in it.

    Returns:
        Any: The same without objects; tensors are copied to the CPU.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray) and value.dtype.kind in 'biuf':  # whose data types the reader does not all know
        return dict(__array__=torch.from_numpy(value.copy()))
    if isinstance(value, BaseDataElement):
        return dict(
            __element__=_name(value), meta=pack(dict(value.metainfo_items())), data=pack(dict(value.items()))
        )
    if isinstance(value, Mapping):
        return {key: pack(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [pack(item) for item in value] if isinstance(value, list) else tuple(pack(item) for item in value)
    # mmdet's boxes and masks, which are no data elements.
    if hasattr(value, 'masks') and hasattr(value, 'height'):
        return dict(__masks__=_name(value), masks=pack(value.masks), height=value.height, width=value.width)
    if isinstance(getattr(value, 'tensor', None), torch.Tensor):
        return dict(__boxes__=_name(value), tensor=pack(value.tensor))
    return value


def unpack(value: Any) -> Any:
    """Undo :func:`pack`.

    Args:
        value (Any): What it returned.

    Returns:
        Any: The batch.

    Raises:
        ValueError: A class is named that is none of OpenMMLab's structures.
    """
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if isinstance(value, tuple):
        return tuple(unpack(item) for item in value)
    if not isinstance(value, dict):
        return value
    if '__element__' in value:
        element = _class(value['__element__'], BaseDataElement)(metainfo=unpack(value['meta']))
        element.set_data(unpack(value['data']))
        return element
    if '__array__' in value:
        return value['__array__'].numpy()
    if '__masks__' in value:
        return _class(value['__masks__'])(unpack(value['masks']), value['height'], value['width'])
    if '__boxes__' in value:
        return _class(value['__boxes__'])(value['tensor'])
    return {key: unpack(item) for key, item in value.items()}


def _name(value: Any) -> str:
    return f'{type(value).__module__}:{type(value).__qualname__}'


def _class(name: str, parent: type | None = None) -> Any:
    """The class of this name, if it is one of a structure."""
    module, _, qualname = name.partition(':')
    package, _, rest = module.partition('.')
    if package in _PACKAGES and (parent is not None or rest.startswith('structures')):
        found = getattr(import_module(module), qualname, None)
        if isinstance(found, type) and (parent is None or issubclass(found, parent)):
            return found
    raise ValueError(f'{name} is no structure of a batch')
