"""The files of the released CL-MAE."""

import torch

from .base import Mapped, State
from .keys import KeyTable, block_pairs
from .mae import MAEFormat

_POSITION = 'masking_net.pos_embed'
_LAST = ('masker.head.weight', 'masker.head.bias')


class CLMAEFormat(MAEFormat):
    """Files of https://github.com/ristea/cl-mae.

    The released masking network returns the weight by which a patch is kept, ours the probability that it is masked, so the
    last layer changes its sign. Its class token has a position embedding, which starts at zero; ours is their sum.
    """

    name = 'cl-mae'
    library = 'the released CL-MAE'
    table = KeyTable(
        [
            *MAEFormat.table.pairs,
            ('masking_net.cls_token', 'masker.cls_token'),
            *block_pairs('masking_net.blocks', 'masker.layers'),
            ('masking_net.mlp_head.0.{p}', 'masker.norm.{p}'),
            ('masking_net.mlp_head.1.{p}', 'masker.head.{p}'),
        ]
    )
    signature = ('masking_net.*',)
    masker = 'ViTMasker/linear'
    masker_words = "a ViTMasker(head='linear')"
    square_only = True

    def knows(self, key: str) -> bool:
        """Whether a key is one of this format."""
        return key == _POSITION or super().knows(key)

    def read(self, state: State) -> Mapped:
        """Translate to our names and to our polarity."""
        position = state.get(_POSITION)
        mapped = super().read({key: value for key, value in state.items() if key != _POSITION})
        if position is not None and 'masker.cls_token' in mapped.state:
            mapped.state['masker.cls_token'] = mapped.state['masker.cls_token'] + position
            mapped.names[_POSITION] = 'masker.cls_token'
        _negate(mapped.state, _LAST)
        note = "the masker is a ViTMasker(head='linear'); its scores are 1 minus the released ones"
        mapped.notes['masker.head.weight'] = note
        return mapped

    def write(self, state: State) -> Mapped:
        """Translate from our names and from our polarity."""
        mapped = super().write(state)
        token = mapped.state.get('masking_net.cls_token')
        if token is not None:
            mapped.state[_POSITION] = torch.zeros_like(token)
            mapped.added[_POSITION] = 'zero, as it starts in the released code; ours is part of the class token'
        _negate(mapped.state, ('masking_net.mlp_head.1.weight', 'masking_net.mlp_head.1.bias'))
        return mapped


def _negate(state: State, keys: tuple[str, ...]) -> None:
    for key in keys:
        if key in state:
            state[key] = -state[key]
