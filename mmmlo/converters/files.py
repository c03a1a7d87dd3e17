"""Reading the files of a conversion, and writing the new one."""

import os
import os.path as osp
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmmlo.utils.checkpoints import CheckpointError, checkpoint_of, file_hash, read_content
from mmmlo.utils.text import format_list
from mmmlo.utils.whole_file import replace_whole

from .base import ConversionError, Format, State
from .formats import MLOMAEFormat

__all__ = ['Source', 'read_sources', 'write_file']


class Source(NamedTuple):
    """What is to be converted.

    Attributes:
        state (dict[str, Tensor]): All weights, under the names of the files.
        meta (dict[str, Any]): What the converter wrote into the file, if it made it.
        name (str): What to call it.
        sha256 (str): The files' SHA-256.
    """

    state: State
    meta: dict[str, Any]
    name: str
    sha256: str


def read_sources(paths: Sequence[str]) -> Source:
    """Read one file, or the several that the released MLO-MAE writes for one run on CIFAR.

    Returns:
        Source: Their weights, without the prefix that PyTorch's wrapper for several processes adds.

    Raises:
        CheckpointError: A file cannot be read, or two hold a weight of the same name.
    """
    state: State = {}
    meta: dict[str, Any] = {}
    for path in paths:
        part, meta = _read(path)
        if len(paths) > 1:
            part = MLOMAEFormat().prepare(part)
        twice = sorted(set(part) & set(state))
        if twice:
            raise ConversionError(f'{path} holds weights that the files before it hold too: {format_list(twice, 3)}')
        state.update(part)
    hashes = [file_hash(path) if osp.isfile(path) else '' for path in paths]
    return Source(state, meta, ' + '.join(paths), ' + '.join(hashes))


def _read(path: str) -> tuple[State, dict[str, Any]]:
    content = read_content(path)
    weights, meta = checkpoint_of(content, path)
    state = {key.removeprefix('module.'): value for key, value in weights.items()}
    if isinstance(content, Mapping) and isinstance(content.get('model'), Mapping):
        # What the released MLO-MAE writes beside the autoencoder.
        for name in MLOMAEFormat.parts:
            part = content[name].items() if isinstance(content.get(name), Mapping) else ()
            state |= {f'{name}.{key.removeprefix("module.")}': value for key, value in part if isinstance(value, Tensor)}
    # A .safetensors file knows no nested values.
    return state, dict(meta.get('converter') or meta)


def write_file(path: str, state: State, target: Format, meta: dict[str, str]) -> None:
    """Write a file as a whole or not at all.

    Args:
        path (str): Where to; ``.safetensors`` writes that format, anything else PyTorch's.
        state (dict[str, Tensor]): The weights, under the target's names.
        target (Format): Its format.
        meta (dict[str, str]): What to write beside them.

    Raises:
        CheckpointError: It cannot be written.
    """
    state = {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    try:
        os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
        with replace_whole(path) as temporary:
            if path.endswith('.safetensors'):
                from safetensors.torch import save_file

                save_file(state, temporary, meta)
            else:
                torch.save(target.content(state, dict(converter=meta)), temporary)
    except ImportError as error:
        raise ConversionError('a .safetensors file needs the package safetensors: pip install safetensors') from error
    except (OSError, RuntimeError) as error:  # PyTorch's writer makes the latter of the former
        raise CheckpointError(f'{path} cannot be written: {str(error).splitlines()[0]}') from error
