"""The size of an encoder, from its weights."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from mmpretrain.models import VisionTransformer
from torch import Tensor

from mmmlo.utils.text import format_list

from .base import ConversionError

__all__ = ['EncoderShape', 'check_fits', 'encoder_shape']

_LAYER = re.compile(r'backbone\.layers\.(\d+)\.')


class EncoderShape(NamedTuple):
    """Size of an encoder.

    Attributes:
        width (int): Width C of the tokens.
        depth (int): Blocks.
        hidden (int): Width of a block's hidden layer.
        patch (int): Side of a patch in pixels.
        length (int): Patches L.
    """

    width: int
    depth: int
    hidden: int
    patch: int
    length: int


def encoder_shape(state: Mapping[str, Tensor], source: str) -> EncoderShape:
    """Read an encoder's size off its weights, and check that they belong together.

    Args:
        state (Mapping[str, Tensor]): Under our names.
        source (str): What to call the file.

    Returns:
        EncoderShape: The size.

    Raises:
        ConversionError: It is a part of an encoder, or one of several widths.
    """
    depth = 1 + max((int(match[1]) for key in state if (match := _LAYER.match(key))), default=-1)
    projection = state.get('backbone.patch_embed.projection.weight')
    if projection is None or not depth:
        raise ConversionError(f'{source} holds a part of an encoder only: it lacks its patch embedding or its blocks')
    width, _, height, patch = projection.shape
    if height != patch:
        raise ConversionError(f'{source} has patches of {height} x {patch} pixels; only square patches are supported')
    first = state.get('backbone.layers.0.ffn.layers.0.0.weight')
    hidden = 0 if first is None else first.shape[0]
    expected: dict[str, tuple[int, ...]] = {'cls_token': (1, 1, width)}
    for i in range(depth):
        layer = f'layers.{i}'
        expected |= {
            f'{layer}.ln1.weight': (width,),
            f'{layer}.ln2.weight': (width,),
            f'{layer}.attn.qkv.weight': (3 * width, width),
            f'{layer}.attn.proj.weight': (width, width),
            f'{layer}.ffn.layers.0.0.weight': (hidden, width),
            f'{layer}.ffn.layers.1.weight': (width, hidden),
        }
    missing = [key for key in [*expected, 'pos_embed'] if f'backbone.{key}' not in state]
    if missing:
        raise ConversionError(
            f'{source} holds an incomplete encoder of {depth} blocks: it lacks {len(missing)} weights, in our names '
            f'{format_list([f"backbone.{key}" for key in missing], 3)}'
        )
    position = state['backbone.pos_embed']
    length = position.shape[1] - 1
    expected['pos_embed'] = (1, length + 1, width)
    wrong = [
        f'backbone.{key} {_times(state[f"backbone.{key}"].shape)} in place of {_times(shape)}'
        for key, shape in expected.items()
        if tuple(state[f'backbone.{key}'].shape) != shape
    ]
    if wrong:
        raise ConversionError(
            f'{source} is no plain vision transformer of width {width}: '
            f'{format_list(wrong, 3)}. Encoders whose blocks differ in '
            'width are not supported.'
        )
    return EncoderShape(width, depth, hidden, patch, length)


def check_fits(shape: EncoderShape, backbone: VisionTransformer, source: str, config: str) -> None:
    """Check that an encoder is of the size that a config asks for.

    Args:
        shape (EncoderShape): Of the file.
        backbone (VisionTransformer): Of the config.
        source (str): What to call the file.
        config (str): What to call the config.

    Raises:
        ConversionError: They differ in width, depth, the blocks' hidden layers or the size of a patch.
    """
    settings = backbone.arch_settings
    asked = dict(
        width=backbone.embed_dims,
        depth=backbone.num_layers,
        hidden=settings['feedforward_channels'],
        patch=backbone.patch_embed.projection.weight.shape[-1],
    )
    words = dict(width='width', depth='number of blocks', hidden='hidden width of a block', patch='side of a patch')
    found = shape._asdict()
    wrong = [f'{words[name]} {found[name]} in place of {value}' for name, value in asked.items() if found[name] != value]
    if wrong:
        raise ConversionError(f'{source} does not fit {config}: {", ".join(wrong)}')


def _times(shape: tuple[int, ...]) -> str:
    return ' x '.join(map(str, shape))
