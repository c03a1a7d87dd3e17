"""The patch grid of a file, and another one."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .base import ConversionError, Format, Grid, State
from .masker_kind import masker_kind, masker_serves_one_grid

__all__ = ['resize_to', 'source_grid']

_POSITIONS = ('backbone.pos_embed', 'neck.decoder_pos_embed')


def source_grid(state: Mapping[str, Tensor], meta: Mapping[str, Any], asked: Grid | None, source: str) -> Grid:
    """Find out the grid of a file's position embedding.

    Args:
        state (Mapping[str, Tensor]): Under our names.
        meta (Mapping[str, Any]): What the converter wrote beside the weights, if it made the file.
        asked (tuple[int, int], optional): What the user says it is.
        source (str): What to call the file.

    Returns:
        tuple[int, int]: Patches along the height and the width: what the user says, the ``neck.grid`` of the file, what the
        converter wrote, or a square.

    Raises:
        ConversionError: These contradict each other, or the embedding, or nothing tells.
    """
    length = state['backbone.pos_embed'].shape[1] - 1
    saved = state.get('neck.grid')
    written = str(meta.get('grid', '')).split('x')
    side = round(length**0.5)
    found: Grid | None = None
    if saved is not None:
        found = (int(saved[0]), int(saved[1]))
    elif len(written) == 2:
        found = (int(written[0]), int(written[1]))
    elif side**2 == length:
        found = (side, side)
    if asked is not None:
        if saved is not None and asked != found:
            raise ConversionError(f'--source-grid {_words(asked)}: {source} itself says {_words(found or asked)}')
        found = asked
    if found is None:
        raise ConversionError(
            f'{source} has positions for {length} patches, which is no square; tell their grid by --source-grid H W'
        )
    if found[0] * found[1] != length:
        raise ConversionError(f'{source} has positions for {length} patches, which is not a grid of {_words(found)}')
    return found


def resize_to(state: State, old: Grid, new: Grid, target: Format) -> tuple[State, list[str], dict[str, str]]:
    """Resize all position embeddings with the function of the target's library.

    Args:
        state (dict[str, Tensor]): Under our names.
        old (tuple[int, int]): Its grid.
        new (tuple[int, int]): The grid asked for.
        target (Format): Whose function resizes.

    Returns:
        tuple[dict[str, Tensor], list[str], dict[str, str]]: The weights, the keys that were resized, and those that were
        dropped, with the reason.
    """
    state = dict(state)
    resized = [key for key in _POSITIONS if key in state and old != new]
    for key in resized:
        state[key] = target.resize(state[key], old, new).contiguous()
    if 'neck.decoder_pos_embed' in state or new[0] != new[1]:  # a decoder of ours has it; without it a square is assumed
        state['neck.grid'] = torch.tensor(new)
    dropped = {}
    if resized and masker_serves_one_grid(masker_kind(state)):
        dropped = dict.fromkeys(
            [key for key in state if key.startswith('masker.')], f'masking network that serves {_words(old)} patches only'
        )
    return {key: value for key, value in state.items() if key not in dropped}, resized, dropped


def _words(grid: Grid) -> str:
    return f'{grid[0]} x {grid[1]}'
