"""Reading checkpoint files, with one clear error for whatever is wrong with one."""

import argparse
import hashlib
import logging
import os.path as osp
import zipfile
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from pickle import UnpicklingError
from typing import Any, NamedTuple
from urllib.error import URLError

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner.checkpoint import CheckpointLoader, get_torch_safe_globals
from torch import Tensor

from mmmlo.utils.errors import MmmloError
from mmmlo.utils.text import describe_error

__all__ = [
    'Checkpoint', 'CheckpointError', 'check_checkpoint', 'checkpoint_of', 'file_hash', 'read_checkpoint', 'read_content',
    'trust_checkpoints', 'use_safe_loaders'
]

# Whether files may run code; see trust_checkpoints.
_trusted = False

# Where files keep their weights: mmengine's; MAE's and timm's; the released CIFAR files' of MLO-MAE.
_CONTAINERS = ('state_dict', 'model', 'model_state_dict')


class CheckpointError(MmmloError, ValueError):
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

    Raises:
        CheckpointError: There is no such file, it is torn or no checkpoint, or it holds code or no weights.
    """
    return checkpoint_of(read_content(path), path)


def checkpoint_of(content: Any, path: str) -> Checkpoint:
    """Find the weights in what :func:`read_content` returned.

    Raises:
        CheckpointError: There are none.
    """
    if isinstance(content, Mapping):
        state = {key: value for key, value in _weights(content).items() if isinstance(value, Tensor)}
        if state:
            return Checkpoint(state, dict(content.get('meta') or {}))
    raise CheckpointError(f"{path} holds no weights: neither a 'state_dict', nor a 'model', nor named tensors")


def trust_checkpoints(trusted: bool = True) -> None:
    """Let checkpoints run code while this process reads them, also through mmengine; a warning names each that does.

    A pickle can hold any call, so this is for files whose makers one would run a program of.
    """
    global _trusted
    _trusted = trusted


def read_content(path: str, map_location: Any = 'cpu', mmap: bool = False) -> Any:
    """Read all that a file holds.

    It is unpickled by PyTorch's ``weights_only`` reader, which runs no code out of the file. A ``.safetensors`` file comes
    as a dict of ``state_dict`` and ``meta``.

    Args:
        path (str): The file, or its address, which begins with ``http://`` or ``https://``.
        map_location (Any): As of ``torch.load``.
        mmap (bool): Whether to leave tensors in the file until they are used; only in PyTorch's zip format.

    Raises:
        CheckpointError: There is no such file, it is torn or no checkpoint, or it holds code and is not trusted.
    """
    if path.startswith(_HTTP):
        return load_from_http(path, map_location)
    if '://' in path:
        return load_from_elsewhere(path)
    path = osp.expanduser(path)
    if not osp.isfile(path):
        what = 'is a folder; name a file in it' if osp.isdir(path) else 'does not exist'
        raise CheckpointError(f'checkpoint {path} {what}')
    if path.endswith('.safetensors'):
        return _tell_grid(_read_safetensors(path))
    return _unpickle(partial(torch.load, path, map_location=map_location, mmap=mmap or None), path)


def _weights(content: Mapping) -> Mapping:
    return next((content[key] for key in _CONTAINERS if isinstance(content.get(key), Mapping)), content)


def _tell_grid(content: Any) -> Any:
    """Give an encoder its grid, which older checkpoints have beside their decoder, which a prefix cuts off."""
    weights = _weights(content) if isinstance(content, Mapping) else {}
    if isinstance(weights, MutableMapping) and 'neck.grid' in weights:
        for encoder in ('backbone', 'ema_backbone'):
            if f'{encoder}.pos_embed' in weights:
                weights.setdefault(f'{encoder}.grid', weights['neck.grid'].clone())
    return content


def check_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint, and all its bytes, to see whether it is whole.

    Returns:
        dict[str, Any]: Its content; tensors stay in the file until they are used.

    Raises:
        CheckpointError: It is torn, its bytes are not those that were written, or it is no checkpoint.
    """
    whole = zipfile.is_zipfile(path)  # else it is torn, or of PyTorch before 1.6
    content = read_content(path, mmap=whole)
    if not isinstance(content, dict):
        raise CheckpointError(f'{path} holds a {type(content).__name__}, where a checkpoint is a dict')
    if whole:
        # PyTorch writes checksums and does not read them.
        try:
            with zipfile.ZipFile(path) as file:
                broken = file.testzip()
        except (zipfile.BadZipFile, OSError) as error:
            raise CheckpointError(f'{path} is only a part of a checkpoint: {describe_error(error)}') from error
        if broken is not None:
            raise CheckpointError(f'{path} is damaged: the bytes of {broken} are not those that were written')
    return content


def _unpickle(load: Callable[..., Any], path: str) -> Any:
    """Call a loader with ``weights_only``, and say what is wrong with the file if it fails."""
    try:
        with torch.serialization.safe_globals(_safe_globals()):
            return _tell_grid(load(weights_only=True))
    except UnpicklingError as error:
        reason = error.__context__ or error  # PyTorch's own message is a page around it
        if 'operand' in str(reason):  # bytes that are no pickle
            raise CheckpointError(f'{path} is no PyTorch checkpoint: {describe_error(reason)}') from error
        found = f'{path} holds more than weights and plain values'
        if not _trusted:
            raise CheckpointError(
                f'{found}, so opening it would run code ({describe_error(reason)}). If you trust its source, call '
                'mmmlo.utils.checkpoints.trust_checkpoints() first (tools/train.py, tools/test.py: --trust-checkpoint), or '
                'save its state_dict alone: torch.save(dict(state_dict=...), FILE)'
            ) from error
        print_log(f'{found} ({describe_error(reason)}). It is trusted: its code is run', 'current', logging.WARNING)
    except URLError as error:
        raise CheckpointError(f'{path} cannot be downloaded: {describe_error(error)}') from error
    except Exception as error:  # reading a file of any kind raises anything
        raise CheckpointError(f'{path} is no PyTorch checkpoint, or only a part of one: {describe_error(error)}') from error
    try:
        return _tell_grid(load(weights_only=False))
    except Exception as error:  # as does its code
        raise CheckpointError(f'{path} cannot be read, although it is trusted: {describe_error(error)}') from error


def _safe_globals() -> list[Any]:
    """List what a pickle may name besides PyTorch's own.

    mmengine's list has ``getattr``, which its ``HistoryBuffer`` is pickled with, and with which a file can reach any module
    and replace its functions. Here it gets at the methods of ``HistoryBuffer`` alone. MAE's training script, and those made
    from it, save their command line's values as a ``Namespace``.
    """
    safe = [value for value in get_torch_safe_globals() if value is not getattr]
    # Numbers of every kind stand in the histories of a log; mmengine names three.
    safe += {type(np.dtype(code)) for code in np.typecodes['AllInteger'] + np.typecodes['Float'] + '?'}
    return [*safe, (_history_method, 'builtins.getattr'), argparse.Namespace]


def _history_method(owner: Any, name: str) -> Any:
    if owner is not HistoryBuffer or name.startswith('_'):
        raise UnpicklingError(f'getattr of {getattr(owner, "__name__", type(owner).__name__)!r}')
    return getattr(owner, name)


def use_safe_loaders() -> None:
    """Have mmengine read checkpoints as :func:`read_content` does, by ``load_from``, ``resume`` and ``init_cfg`` alike.

    Where a file needs more than ``weights_only`` gives, the maintained fork's mmengine (0.10.12) says so in the log and
    unpickles it all the same, which runs its code; downloads it just unpickles. Its loaders are registered by the schemes of
    addresses, and these take their places in the whole process, so only what starts a run calls this.
    """
    for prefixes, loader in (('', load_from_local), (_HTTP, load_from_http), (_ELSEWHERE, load_from_elsewhere)):
        CheckpointLoader.register_scheme(prefixes=prefixes, loader=loader, force=True)


_HTTP = ('http://', 'https://')
_ELSEWHERE = (
    r'(\S+\:)?s3://', r'(\S+\:)?petrel://', 'modelzoo://', 'torchvision://', 'open-mmlab://', 'openmmlab://', 'mmcls://', 'pavi://'
)


# mmengine's log cuts the first ten letters off these names.
def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a file."""
    return read_content(filename, map_location)


def load_from_http(filename: str, map_location: Any = None) -> Any:
    """Download a file, on the first process before the others, and read it."""
    load = partial(torch.hub.load_state_dict_from_url, filename, map_location=map_location)
    content = _unpickle(load, filename) if is_main_process() else None
    barrier()
    return content if is_main_process() else _unpickle(load, filename)


def load_from_elsewhere(filename: str, map_location: Any = None) -> Any:
    """Refuse mmengine's other schemes."""
    raise CheckpointError(f'{filename}: this scheme is not supported; download the file')


def _read_safetensors(path: str) -> dict[str, dict[str, Any]]:
    try:
        from safetensors import safe_open

        with safe_open(path, framework='pt') as file:
            return dict(state_dict={name: file.get_tensor(name) for name in file.keys()}, meta=file.metadata() or {})  # noqa: SIM118
    except ImportError as error:
        raise CheckpointError(f'{path} needs the package safetensors: pip install safetensors') from error
    except Exception as error:  # its own class, which is in no stable place
        raise CheckpointError(f'{path} is no .safetensors file, or only a part of one: {describe_error(error)}') from error


def file_hash(path: str) -> str:
    """Compute the SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
