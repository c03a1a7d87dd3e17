"""Reading checkpoint files, with one clear error for whatever is wrong with one."""

import argparse
import hashlib
import json
import logging
import os
import os.path as osp
import re
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pickle import UnpicklingError
from typing import Any, NamedTuple
from urllib.error import URLError

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner.checkpoint import CheckpointLoader, get_torch_safe_globals
from safetensors import safe_open
from torch import Tensor

from mmmlo.utils.errors import MmmloError
from mmmlo.utils.text import describe_error, format_list

__all__ = [
    'Checkpoint', 'CheckpointError', 'check_checkpoint', 'conversion_advice', 'file_hash', 'find_weights', 'read_checkpoint',
    'read_content', 'trust_checkpoints', 'use_safe_loaders'
]

# Whether files may run code; see trust_checkpoints.
_trusted = False

# An encoder is known by its patch embedding: of mmpretrain, mmseg, timm and most others; of Hugging Face; of torchvision.
_PATCH_EMBEDDING = re.compile(
    r'(?:^|\.)(patch_embed\.proj(ection)?|embeddings\.patch_embeddings\.projection|conv_proj)\.weight$'
)
# Of several encoders these are the ones meant, of OpenMMLab and MoCo v3: beside them stand averages and targets.
_MAIN = ('backbone', 'base_encoder')
# What PyTorch's wrappers put into names.
_WRAPPERS = re.compile(r'(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.')


class CheckpointError(MmmloError, ValueError):
    """A file that is no checkpoint, or one that does not fit."""


class Checkpoint(NamedTuple):
    """What a file holds: weights, what mmengine wrote beside them, and what the names of its encoders begin with."""

    state_dict: dict[str, Tensor]
    meta: dict[str, Any]
    path: str = ''
    prefixes: tuple[str, ...] = ('', )

    @property
    def prefix(self) -> str:
        """str: What the names of the one encoder begin with, as 'backbone.'; empty if they stand there bare."""
        _check_one(self.prefixes, self.path)
        return self.prefixes[0]

    @property
    def encoder(self) -> dict[str, Tensor]:
        """dict[str, Tensor]: The encoder's weights, without the prefix."""
        size = len(self.prefix)
        return {key[size:]: value for key, value in self.state_dict.items() if key.startswith(self.prefix)}


def read_checkpoint(path: str, key: str | None = None) -> Checkpoint:
    """Read the weights of a file; see :func:`read_content` and :func:`find_weights`, whose errors it raises."""
    return find_weights(read_content(path), path, key)


def find_weights(content: Any, path: str, key: str | None = None) -> Checkpoint:
    """Find the weights in the content of the file ``path``, in whatever dicts and under whatever prefix they stand.

    Of mmengine's checkpoints it is the ``state_dict``; of others the dict that holds an encoder, else the ``state_dict``,
    the ``model``, or the first dict of tensors. Names lose what PyTorch's wrappers add, such as ``module.``. Of several
    encoders ``key`` chooses one by a part of the way to it, such as 'teacher'.

    Raises:
        CheckpointError: There are no weights, not the encoder that was asked for, or several in different dicts.
    """
    if re.search(r'-\d{5}-of-(?!00001)\d{5}\.\w+$', path):
        raise CheckpointError(f'{path} is one part of several; name their index, which ends in .index.json')
    content = content if isinstance(content, Mapping) else {}
    meta = content.get('meta')
    if key is None and isinstance(meta, Mapping) and isinstance(content.get('state_dict'), Mapping):
        content = dict(state_dict=content['state_dict'])
    groups = {place: _unwrap(weights) for place, weights in _groups(content)}
    if not groups:
        raise CheckpointError(f"{path} holds no weights: neither a 'state_dict', nor a 'model', nor named tensors")
    places = {  # of encoders: the dicts that they stand in
        place + name[:match.start(1)]: place
        for place, weights in groups.items() for name in weights if (match := _PATCH_EMBEDDING.search(name))
    }
    if key is None:
        chosen = [label for label in places if label.rstrip('.').split('.')[-1] in _MAIN] or list(places)
    else:
        exact = [label for label in places if label == f'{key}.']
        chosen = exact or [label for label in places if f'.{key}.' in f'.{label}']
        if not chosen:
            raise CheckpointError(f'{path} has no encoder {key!r}; it has {_names(places)}')
        _check_one(chosen, path)
    if len({places[label] for label in chosen}) > 1:
        _check_one(chosen, path)
    place = places[chosen[0]] if chosen else next((p for p in ('state_dict.', 'model.') if p in groups), next(iter(groups)))
    state = groups[place]
    if 'neck.grid' in state and 'backbone.pos_embed' in state:  # as older checkpoints have it, where a prefix cuts it off
        state.setdefault('backbone.grid', state['neck.grid'].clone())
    # What is no vision transformer may have a backbone all the same.
    other = 'backbone.' if any(name.startswith('backbone.') for name in state) else ''
    prefixes = tuple(label[len(place):] for label in chosen) or (other, )
    return Checkpoint(state, dict(meta) if isinstance(meta, Mapping) else {}, path, prefixes)


def _check_one(encoders: Collection[str], path: str) -> None:
    if len(encoders) > 1:
        command = _convert_command(path, f' --key {next(iter(encoders)).rstrip(".")}')
        raise CheckpointError(f'{path} holds {len(encoders)} encoders: {_names(encoders)}. Choose one by --key: {command}')


def _names(encoders: Iterable[str]) -> str:
    return format_list([name.rstrip('.') or 'bare names' for name in encoders] or ['none'], 9)


def _groups(content: Mapping, place: str = '') -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Find the dicts that hold tensors, by their dotted place."""
    own = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if own:
        yield place, own
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, Mapping) and not key.startswith('optimizer'):
            yield from _groups(value, f'{place}{key}.')


def _unwrap(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {re.sub(r'^(module\.)+', '', _WRAPPERS.sub('', key)): value for key, value in weights.items()}


def conversion_advice(names: Iterable[str], path: str) -> str:
    """Write the command that makes an encoder fit, as a further sentence, if there is one among the names of weights."""
    found = any(_PATCH_EMBEDDING.search(name) for name in names)
    return f'. For its encoder alone, under our names: {_convert_command(path)}' if found else ''


def _convert_command(path: str, more: str = '') -> str:
    out = re.sub(r'(\.\w+|\.index\.json)$', '', osp.basename(path))
    return f'python tools/model_converters/convert.py {path} {out}_mmmlo.pth --to mmmlo{more}'


def trust_checkpoints(trusted: bool = True) -> None:
    """Let checkpoints run code while this process reads them, also through mmengine; a warning names each that does.

    A pickle can hold any call, so this is for files whose makers one would run a program of.
    """
    global _trusted
    _trusted = trusted


def read_content(path: str, map_location: Any = 'cpu', mmap: bool = False) -> Any:
    """Read all that a file holds; an address begins with ``http://`` or ``https://``.

    It is unpickled by PyTorch's ``weights_only`` reader, which runs no code out of the file. A ``.safetensors`` file comes
    as a dict of ``state_dict`` and ``meta``, and so do the files that an index of Hugging Face's names. With ``mmap``
    tensors stay in the file until they are used; only in PyTorch's zip format.

    Raises:
        CheckpointError: There is no such file, it is torn or no checkpoint, or it holds code and is not trusted.
    """
    if path.startswith(_HTTP):
        return _download(path, map_location)
    if '://' in path:
        return load_from_elsewhere(path)
    path = osp.expanduser(path)
    if osp.isdir(path):
        files = [name for name in sorted(os.listdir(path)) if name.endswith(('.pth', '.bin', '.safetensors', '.index.json'))]
        inside = f': {format_list(files, 9)}' if files else ''
        raise CheckpointError(f'checkpoint {path} is a folder; name a file in it{inside}')
    if not osp.isfile(path):
        raise CheckpointError(f'checkpoint {path} does not exist')
    if path.endswith('.index.json'):
        return _read_shards(path)
    if path.endswith('.safetensors'):
        return _read_safetensors(path)
    return _unpickle(partial(torch.load, path, map_location=map_location, mmap=mmap or None), path)


def _read_index(path: str) -> tuple[list[str], list[str]]:
    """Read the names of the weights, and the files that they are in, from an index of Hugging Face's."""
    try:
        with open(path, encoding='utf-8') as file:
            index = json.load(file)['weight_map']
        return list(index), [osp.join(osp.dirname(path), name) for name in sorted(set(index.values()))]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f'{path} is no index of a checkpoint in several files: {describe_error(error)}') from error


def _read_shards(path: str) -> dict[str, dict[str, Any]]:
    keys, files = _read_index(path)
    state: dict[str, Tensor] = {}
    for file in files:
        content = read_content(file)
        state.update(content['state_dict'] if file.endswith('.safetensors') else content)
    if missing := [key for key in keys if key not in state]:
        raise CheckpointError(f'{path} names {len(missing)} weights that its files do not hold: {format_list(missing, 3)}')
    return dict(state_dict=state, meta={})


def check_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint, and all its bytes, or raise :class:`CheckpointError`; its tensors stay in the file."""
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
            return load(weights_only=True)
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
        return load(weights_only=False)
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
    """Read a file, and put its weights where mmengine looks for them."""
    content = read_content(filename, map_location)
    weights = find_weights(content, filename).state_dict
    state = content.get('state_dict')
    return content if isinstance(state, Mapping) and state.keys() == weights.keys() else {**content, 'state_dict': weights}


def load_from_http(filename: str, map_location: Any = None) -> Any:
    """Do the same with a download."""
    return load_from_local(filename, map_location)


def _download(address: str, map_location: Any) -> Any:
    """Download a file, on the first process before the others, and read it."""
    load = partial(torch.hub.load_state_dict_from_url, address, map_location=map_location)
    content = _unpickle(load, address) if is_main_process() else None
    barrier()
    return content if is_main_process() else _unpickle(load, address)


def load_from_elsewhere(filename: str, map_location: Any = None) -> Any:
    """Refuse mmengine's other schemes."""
    raise CheckpointError(f'{filename}: this scheme is not supported; download the file')


def _read_safetensors(path: str) -> dict[str, dict[str, Any]]:
    try:
        with safe_open(path, framework='pt') as file:
            return dict(state_dict={name: file.get_tensor(name) for name in file.keys()}, meta=file.metadata() or {})  # noqa: SIM118
    except Exception as error:  # its own class, which is in no stable place
        raise CheckpointError(f'{path} is no .safetensors file, or only a part of one: {describe_error(error)}') from error


def file_hash(path: str) -> str:
    """Compute the SHA-256 of a file's content, and of those that it is an index of, in hexadecimal."""
    digest = hashlib.sha256()
    for name in [path, *(_read_index(path)[1] if path.endswith('.index.json') else [])]:
        with open(name, 'rb') as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
