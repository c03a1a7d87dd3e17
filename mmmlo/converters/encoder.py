"""The size of an encoder and its grid of patches, from weights under our names."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmmlo.utils.text import format_list

from .base import ConversionError, Format, Grid, State, masker_kind

__all__ = ['EncoderShape', 'encoder_shape', 'resize_to', 'source_grid']


class EncoderShape(NamedTuple):
    """Size of an encoder: width C of a token, blocks, width of their hidden layers, side of a patch, patches L, channels."""

    width: int
    depth: int
    hidden: int
    patch: int
    length: int
    channels: int


def encoder_shape(state: Mapping[str, Tensor], source: str) -> EncoderShape:
    """Read an encoder's size off its weights, under our names, or raise :class:`ConversionError` if it is none or a part."""
    blocks = [int(match[1]) for key in state if (match := re.match(r'backbone\.layers\.(\d+)\.', key))]
    projection = state.get('backbone.patch_embed.projection.weight')
    if projection is None or not blocks:
        raise ConversionError(f'{source} holds a part of an encoder only: it lacks its patch embedding or its blocks')
    width, channels, height, patch = projection.shape
    if height != patch:
        raise ConversionError(f'{source} has patches of {height} x {patch} pixels; only square patches are supported')
    depth = 1 + max(blocks)
    first = state.get('backbone.layers.0.ffn.layers.0.0.weight')
    hidden = 0 if first is None else len(first)
    shapes = {
        'ln1.weight': (width,), 'ln2.weight': (width,), 'attn.qkv.weight': (3 * width, width),
        'attn.proj.weight': (width, width), 'ffn.layers.0.0.weight': (hidden, width), 'ffn.layers.1.weight': (width, hidden),
    }
    expected = {f'backbone.layers.{i}.{name}': shape for i in range(depth) for name, shape in shapes.items()}
    missing = [key for key in [*expected, 'backbone.cls_token', 'backbone.pos_embed'] if key not in state]
    if missing:
        raise ConversionError(
            f'{source} holds an incomplete encoder of {depth} blocks: it lacks {len(missing)} weights, in our names '
            f'{format_list(missing, 3)}'
        )
    length = state['backbone.pos_embed'].shape[1] - 1
    expected |= {'backbone.cls_token': (1, 1, width), 'backbone.pos_embed': (1, length + 1, width)}
    wrong = [
        f'{key} {_times(state[key].shape)} in place of {_times(shape)}'
        for key, shape in expected.items() if tuple(state[key].shape) != shape
    ]
    if wrong:
        raise ConversionError(
            f'{source} is no plain vision transformer of width {width}: {format_list(wrong, 3)}. Encoders whose blocks '
            'differ in width are not supported.'
        )
    return EncoderShape(width, depth, hidden, patch, length, channels)


def source_grid(state: Mapping[str, Tensor], meta: Mapping[str, Any], asked: Grid | None, source: str) -> Grid:
    """Find out the grid (H, W) of a file's position embedding, in patches.

    It is what the user says, ``backbone.grid``, what the converter wrote into ``meta``, or a square; where these
    contradict each other, or nothing tells, it is a :class:`ConversionError`.
    """
    length = state['backbone.pos_embed'].shape[1] - 1
    saved = state.get('backbone.grid', state.get('neck.grid'))
    numbers = saved.tolist() if saved is not None else str(meta.get('grid', '')).split('x')
    side = round(length**0.5)
    found: Grid | None = None
    if len(numbers) == 2:
        found = (int(numbers[0]), int(numbers[1]))
    elif side**2 == length:
        found = (side, side)
    if asked is not None:
        if saved is not None and asked != found:
            raise ConversionError(f'--source-grid {_times(asked)}: {source} itself says {_times(found or asked)}')
        found = asked
    if found is None:
        raise ConversionError(
            f'{source} has positions for {length} patches, which is no square; tell their grid by --source-grid H W'
        )
    if found[0] * found[1] != length:
        raise ConversionError(f'{source} has positions for {length} patches, which is not a grid of {_times(found)}')
    return found


def resize_to(state: State, old: Grid, new: Grid, target: Format) -> tuple[State, list[str], dict[str, str]]:
    """Resize all position embeddings under our names with the function of the target's library.

    Returns:
        tuple[dict[str, Tensor], list[str], dict[str, str]]: The weights, the keys that were resized, and those that were
        dropped, with the reason.
    """
    state = dict(state)
    positions = [key for key in state if key in ('backbone.pos_embed', 'neck.decoder_pos_embed')]
    resized = positions if old != new else []
    for key in resized:
        state[key] = target.resize(state[key], old, new).contiguous()
    if new[0] != new[1] or {'backbone.grid', 'neck.decoder_pos_embed'} & state.keys():  # without it a square is assumed
        state['backbone.grid'] = torch.tensor(new)
    if 'neck.decoder_pos_embed' in state:
        state['neck.grid'] = torch.tensor(new)
    dropped = {}
    # These maskers have an output for each patch of one grid.
    if resized and masker_kind(state) in ('MLPMasker', 'ViTMasker/mlp', 'ViTMasker/linear'):
        reason = f'masking network that serves {_times(old)} patches only'
        dropped = {key: reason for key in state if key.startswith('masker.')}
    return {key: value for key, value in state.items() if key not in dropped}, resized, dropped


def _times(sizes: tuple[int, ...]) -> str:
    return ' x '.join(map(str, sizes))
