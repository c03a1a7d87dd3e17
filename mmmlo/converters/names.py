"""Names of the same weights in two libraries."""

import re
from collections.abc import Iterable
from functools import cache

__all__ = ['DECODER', 'ENCODER', 'LAYER_SCALE', 'KeyTable', 'Pair', 'block_pairs']

Pair = tuple[str, str]


class KeyTable:
    """Pairs of another library's name and ours for one weight; ``{n}`` is a number and ``{p}`` 'weight' or 'bias'."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self.pairs = tuple(pairs)

    def to_ours(self, key: str) -> str | None:
        """Give our name of one of their weights, or None."""
        return _translate(self.pairs, key)

    def to_theirs(self, key: str) -> str | None:
        """Give their name of one of our weights, or None."""
        return _translate(((ours, theirs) for theirs, ours in self.pairs), key)


def block_pairs(theirs: str, ours: str) -> list[Pair]:
    """Pair the names in a list of timm's blocks, which MAE and its descendants have kept, with those in mmpretrain's."""
    names = {
        'norm1': 'ln1', 'attn.qkv': 'attn.qkv', 'attn.proj': 'attn.proj', 'norm2': 'ln2', 'mlp.fc1': 'ffn.layers.0.0',
        'mlp.fc2': 'ffn.layers.1',
    }
    return [(f'{theirs}.{{n}}.{name}.{{p}}', f'{ours}.{{n}}.{own}.{{p}}') for name, own in names.items()]


# The encoder as timm and MAE name it. fc_norm is the norm on the mean of the patches, where a classifier has one.
ENCODER: list[Pair] = [
    ('cls_token', 'backbone.cls_token'),
    ('pos_embed', 'backbone.pos_embed'),
    ('patch_embed.proj.{p}', 'backbone.patch_embed.projection.{p}'),
    *block_pairs('blocks', 'backbone.layers'),
    ('norm.{p}', 'backbone.ln1.{p}'),
    ('fc_norm.{p}', 'backbone.ln2.{p}'),
    ('head.{p}', 'head.fc.{p}'),
]

# timm's factors on the output of each half of a block, where an encoder has them.
LAYER_SCALE: list[Pair] = [
    ('blocks.{n}.ls1.gamma', 'backbone.layers.{n}.attn.gamma1.weight'),
    ('blocks.{n}.ls2.gamma', 'backbone.layers.{n}.ffn.gamma2.weight'),
]

# MAE's decoder.
DECODER: list[Pair] = [
    ('mask_token', 'neck.mask_token'),
    ('decoder_pos_embed', 'neck.decoder_pos_embed'),
    ('decoder_embed.{p}', 'neck.decoder_embed.{p}'),
    *block_pairs('decoder_blocks', 'neck.decoder_blocks'),
    ('decoder_norm.{p}', 'neck.ln1.{p}'),
    ('decoder_pred.{p}', 'neck.decoder_pred.{p}'),
]


@cache
def _compile(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r'\{n\}', r'(?P<n>\d+)').replace(r'\{p\}', '(?P<p>weight|bias)'))


def _translate(pairs: Iterable[Pair], key: str) -> str | None:
    for old, new in pairs:
        if match := _compile(old).fullmatch(key):
            return new.format(**match.groupdict())
    return None
