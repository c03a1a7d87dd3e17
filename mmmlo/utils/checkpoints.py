"""Reading checkpoint files, with one clear error for whatever is wrong with one."""

import argparse
import hashlib
import os.path as osp
from collections.abc import Mapping, Sequence
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from mmengine.runner.checkpoint import CheckpointLoader, get_torch_safe_globals
from torch import Tensor

__all__ = [
    'Checkpoint', 'CheckpointError', 'checkpoint_of', 'default_labels', 'describe_error', 'file_hash', 'read_checkpoint',
    'read_content'
]

# Where files keep their weights: mmengine's; MAE's and timm's; the released CIFAR files' of MLO-MAE.
_CONTAINERS = ('state_dict', 'model', 'model_state_dict')


class CheckpointError(ValueError):
    """A file that is no checkpoint, or one that does not fit."""


class Checkpoint(NamedTuple):
    """What a file holds.

    Attributes:
        state_dict (dict[str, Tensor]): Names and values of the weights, on the CPU.
        meta (dict): What mmengine wrote beside them, as ``cfg``, the config's text, and ``iter``; empty for other files.
    """

    state_dict: dict[str, Tensor]
    meta: dict[str, Any]


def read_checkpoint(path: str) -> Checkpoint:
    """Read the weights of a file: mmengine's ``state_dict``, the ``model`` of others, or bare weights.

    Args:
        path (str): The file, or its address; see :func:`read_content`.

    Returns:
        Checkpoint: Weights and meta information.

    Raises:
        CheckpointError: There is no such file, it is torn or no checkpoint, or it holds code or no weights.
    """
    return checkpoint_of(read_content(path), path)


def checkpoint_of(content: Any, path: str) -> Checkpoint:
    """Find the weights in what :func:`read_content` returned.

    Args:
        content (Any): What a file holds.
        path (str): The file, for messages.

    Returns:
        Checkpoint: Weights and meta information.

    Raises:
        CheckpointError: It holds no weights.
    """
    if isinstance(content, Mapping):
        weights = next((content[key] for key in _CONTAINERS if isinstance(content.get(key), Mapping)), content)
        state = {key: value for key, value in weights.items() if isinstance(value, Tensor)}
        if state:
            return Checkpoint(state, dict(content.get('meta') or {}))
    raise CheckpointError(f"{path} holds no weights: neither a 'state_dict', nor a 'model', nor named tensors")


def read_content(path: str) -> Any:
    """Read all that a file holds.

    A local file is unpickled by PyTorch's ``weights_only`` reader, which runs no code out of the file. Addresses with a
    scheme, as ``https://``, go through mmengine's loader. A ``.safetensors`` file comes as a dict of ``state_dict`` and
    ``meta``.

    Args:
        path (str): The file, or its address.

    Returns:
        Any: What was saved.

    Raises:
        CheckpointError: There is no such file, it is torn or no checkpoint, or it holds code.
    """
    if '://' in path:
        return CheckpointLoader.load_checkpoint(path, map_location='cpu')
    if not osp.isfile(path):
        what = 'is a folder; name a file in it' if osp.isdir(path) else 'does not exist'
        raise CheckpointError(f'checkpoint {path} {what}')
    if path.endswith('.safetensors'):
        return _read_safetensors(path)
    try:
        # MAE's training script, and those made from it, save their command line's values as a Namespace.
        with torch.serialization.safe_globals([*get_torch_safe_globals(), argparse.Namespace]):
            return torch.load(path, map_location='cpu', weights_only=True)
    except UnpicklingError as error:
        reason = error.__context__ or error  # PyTorch's own message is a page around it
        if 'operand' in str(reason):  # bytes that are no pickle
            raise CheckpointError(f'{path} is no PyTorch checkpoint: {describe_error(reason)}') from error
        raise CheckpointError(
            f'{path} holds more than weights and plain values, so opening it would run code '
            f'({describe_error(reason)}). If you trust its source, save its state_dict alone: '
            'torch.save(dict(state_dict=...), FILE)'
        ) from error
    except Exception as error:  # reading a file of any kind raises anything
        raise CheckpointError(f'{path} is no PyTorch checkpoint, or only a part of one: {describe_error(error)}') from error


def _read_safetensors(path: str) -> dict[str, dict[str, Any]]:
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise CheckpointError(f'{path} needs the package safetensors: pip install safetensors') from error
    try:
        with safe_open(path, framework='pt') as file:
            names = list(file.keys())
            return dict(state_dict={name: file.get_tensor(name) for name in names}, meta=file.metadata() or {})
    except Exception as error:  # its own class, which is in no stable place
        raise CheckpointError(f'{path} is no .safetensors file, or only a part of one: {describe_error(error)}') from error


def default_labels(paths: Sequence[str]) -> list[str]:
    """Names for checkpoints in tables and pictures: the paths below the folder that they share, without the ending."""
    absolute = [osp.splitext(osp.abspath(path))[0] for path in paths]
    common = osp.commonpath([osp.dirname(path) for path in absolute])
    return [osp.relpath(path, common) for path in absolute]


def file_hash(path: str) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def describe_error(error: BaseException) -> str:
    """The type of an error and the first sentence of its message."""
    first = (str(error).strip() or 'no message').splitlines()[0]
    return f'{type(error).__name__}: {first.split(". ")[0]}'
