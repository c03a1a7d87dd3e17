"""mmsegmentation's ``MAE`` backbone."""

from collections.abc import Mapping

import torch
from torch import Tensor

from .base import ConversionError, Format, Mapped, State
from .keys import ENCODER, KeyTable
from .layer_scale import gamma_pairs

_GAMMA = ('layers.{n}.gamma_1', 'layers.{n}.gamma_2')


class MMSegMAEFormat(Format):
    """Files for ``backbone=dict(type='MAE', init_cfg=dict(type='Pretrained', checkpoint=FILE))`` of mmsegmentation.

    Its names are mmpretrain's without the prefix. Beside them it has layer scales and tables of relative positions, which an
    encoder of MAE's has not. Its own initialization makes the tables zero, and the scales ``init_values``.
    """

    name = 'mmseg-mae'
    library = "mmsegmentation's MAE backbone"
    container = 'state_dict'
    table = KeyTable(
        [(ours.removeprefix('backbone.'), ours) for _, ours in ENCODER if ours.startswith('backbone.')]
        + gamma_pairs(*_GAMMA)
    )
    signature = ('*layers.*.gamma_[12]', '*relative_position_*')
    resize_function = (
        "mmpretrain's resize_pos_embed (bicubic, align_corners=False, no antialiasing), as mmseg's MAE.resize_abs_pos_embed"
    )

    def prepare(self, state: State) -> State:
        """Leave out the prefix that the backbone has in a segmentor."""
        return {key.removeprefix('backbone.'): value for key, value in state.items()}

    def drops_reading(self) -> dict[str, str]:
        """Patterns of its keys that have no place with us, and why."""
        return {
            '*.relative_position_index': 'an index that mmseg computes',
            'decode_head.*': 'part of another task, not of the encoder',
            'auxiliary_head.*': 'part of another task, not of the encoder',
            'neck.*': 'part of another task, not of the encoder',
        }

    def drops_writing(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        """Patterns of our keys that have no place here, and why."""
        return {
            **super().drops_writing(state),
            'head.*': 'head of a classifier, not part of the backbone',
            'backbone.ln2.*': 'norm on the mean of the patches, not part of the backbone',
        }

    def knows(self, key: str) -> bool:
        """Whether a key is one of this format."""
        return key.endswith('.relative_position_bias_table') or super().knows(key)

    def read(self, state: State) -> Mapped:
        """Translate to our names; what is neutral is left out.

        Raises:
            ConversionError: Relative positions were trained, which our encoder has not.
        """
        neutral = {}
        for key, value in state.items():
            if key.endswith('.relative_position_bias_table'):
                if torch.any(value != 0):
                    raise ConversionError(
                        f'{key} is not zero: this encoder was trained with relative positions, which mmmlo and the other '
                        'formats have no place for'
                    )
                neutral[key] = 'neutral: 0 everywhere'
        gammas = [key for key in state if key.split('.')[-1] in ('gamma_1', 'gamma_2')]
        if all(torch.all(state[key] == 1) for key in gammas):
            neutral.update(dict.fromkeys(gammas, 'neutral: 1 everywhere'))
        mapped = super().read({key: value for key, value in state.items() if key not in neutral})
        mapped.dropped.update(neutral)
        name = 'backbone.layers.0.attn.gamma1.weight'
        mapped.notes[name] = 'it has layer scales: give the backbone a layer_scale_init_value'
        return mapped

    def write(self, state: State) -> Mapped:
        """Translate from our names."""
        mapped = super().write(state)
        if 'layers.0.gamma_1' not in mapped.state:
            mapped.notes['pos_embed'] = (
                "set init_values=1.0 of mmseg's MAE: its layer scales are not in this file and must be neutral; 0.1 is the "
                'default'
            )
        mapped.notes['ln1.weight'] = "ln1.* is the final norm, which mmseg's MAE has with final_norm=True only"
        return mapped
