"""The formats, one class each, and which of them a file is of."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmmlo.utils.text import format_list

from .base import ConversionError, Format, Grid, Mapped, State, rename
from .names import DECODER, ENCODER, LAYER_SCALE, KeyTable, block_pairs

__all__ = ['FORMATS', 'closest_format', 'detect_format', 'get_format']

_OTHER_TASK = 'part of another task, not of the encoder'


class MMMLOFormat(Format):
    """Checkpoints of this project and of mmpretrain, and files that hold such an encoder alone."""

    name = 'mmmlo'
    container = 'state_dict'
    table = KeyTable((ours, ours) for _, ours in [*ENCODER, *LAYER_SCALE, *DECODER, ('', 'backbone.grid')])
    signature = ('backbone.layers.*', 'layers.*')
    has_decoder = True

    left_reading = {
        'ema_backbone.*': "moving average of the encoder's weights, beside the weights themselves",
        'data_preprocessor.*': 'mean and deviation of pixels',
        'decode_head.*': _OTHER_TASK,
        'auxiliary_head.*': _OTHER_TASK,
        'rpn_head.*': _OTHER_TASK,
        'roi_head.*': _OTHER_TASK,
        'bbox_head.*': _OTHER_TASK,
        'mask_head.*': _OTHER_TASK,
    }

    def knows(self, key: str) -> bool:
        return self._own(key) is not None or super().knows(key)

    def read(self, state: State) -> Mapped:
        """Keep the names; those of an encoder alone get their prefix."""
        return rename(state, self._own, self.left_reading, f'{self.name} has no such weights')

    def write(self, state: State) -> Mapped:
        """Keep the names."""
        return Mapped(dict(state), {key: key for key in state})

    def _own(self, key: str) -> str | None:
        module = key.split('.')[0]
        if module in ('neck', 'masker', 'downstream', 'head'):
            return key
        return self.table.to_ours(key if module == 'backbone' else f'backbone.{key}')


class TimmFormat(Format):
    """Files for ``timm.create_model('vit_...', checkpoint_path=FILE)``."""

    name = 'timm'
    container = 'state_dict'
    table = KeyTable([*ENCODER, *LAYER_SCALE])
    signature = ('blocks.*',)
    resize_function = "timm's resample_abs_pos_embed (bicubic, antialiased)"

    def resize(self, position: Tensor, old: Grid, new: Grid) -> Tensor:
        from timm.layers import resample_abs_pos_embed

        return resample_abs_pos_embed(position, list(new), list(old), num_prefix_tokens=1)


class MAEFormat(Format):
    """Files of https://github.com/facebookresearch/mae, pretrained (with or without decoder) and fine-tuned."""

    name = 'mae'
    table = KeyTable([*ENCODER, *DECODER])
    signature: tuple[str, ...] = ('decoder_*', 'mask_token')
    has_decoder = True
    resize_function = f"{Format.resize_function}, as MAE's interpolate_pos_embed"

class MLOMAEFormat(MAEFormat):
    """Files of https://github.com/Alexiland/MLO-MAE.

    The ImageNet script writes one file with ``model``, ``masking_module`` and ``finetune_module``, the CIFAR scripts write
    pretrain.pth, masking.pth and finetune.pth. Here the weights of the latter two have their module's name as a prefix.
    """

    name = 'mlo-mae'
    table = KeyTable(
        [
            *MAEFormat.table.pairs,
            ('masking_module.first_hidden_layer.fc.{p}', 'masker.layers.1.{p}'),
            ('masking_module.output_layer.{p}', 'masker.layers.3.{p}'),
            ('finetune_module.fc_norm.{p}', 'downstream.norm.{p}'),
            ('finetune_module.head.{p}', 'downstream.fc.{p}'),
        ]
    )
    notes_reading = {'masker.layers.1.weight': "the masker is an MLPMasker with act_cfg=dict(type='ReLU')"}
    notes_writing = {
        'masking_module.output_layer.weight': "the released masking network has ReLU; an MLPMasker's default is GELU"
    }
    parts = ('masking_module', 'finetune_module')
    signature = ('masking_module.*', 'finetune_module.*', 'first_hidden_layer.*')
    masker = 'MLPMasker'
    masker_words = 'an MLPMasker'
    square_only = True

    def prepare(self, state: State) -> State:
        """Give the bare weights of masking.pth and finetune.pth their prefix."""
        if set(state) == {f'{module}.{p}' for module in ('fc_norm', 'head') for p in ('weight', 'bias')}:
            return {f'finetune_module.{key}': value for key, value in state.items()}
        masker = ('first_hidden_layer.', 'output_layer.')
        return {f'masking_module.{key}' if key.startswith(masker) else key: value for key, value in state.items()}

    def content(self, state: State, meta: dict[str, Any]) -> dict[str, Any]:
        """Lay the weights out as the ImageNet script does."""
        content: dict[str, Any] = {'model': {}}
        for key, value in state.items():
            part, _, name = key.partition('.')
            if part in self.parts:
                content.setdefault(part, {})[name] = value
            else:
                content['model'][key] = value
        return {**content, 'meta': meta}


class CLMAEFormat(MAEFormat):
    """Files of https://github.com/ristea/cl-mae.

    The released masking network returns the weight by which a patch is kept, ours the probability that it is masked, so the
    last layer changes its sign. Its class token has a position embedding, which starts at zero; ours is their sum.
    """

    name = 'cl-mae'
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
    notes_reading = {
        'masker.head.weight': "the masker is a ViTMasker(head='linear'); its scores are 1 minus the released ones"
    }
    position = 'masking_net.pos_embed'

    def knows(self, key: str) -> bool:
        return key == self.position or super().knows(key)

    def read(self, state: State) -> Mapped:
        """Translate to our names and to our polarity."""
        position = state.get(self.position)
        mapped = super().read({key: value for key, value in state.items() if key != self.position})
        if position is not None and 'masker.cls_token' in mapped.state:
            mapped.state['masker.cls_token'] = mapped.state['masker.cls_token'] + position
            mapped.names[self.position] = 'masker.cls_token'
        _negate(mapped.state, 'masker.head')
        return mapped

    def write(self, state: State) -> Mapped:
        """Translate from our names and from our polarity."""
        mapped = super().write(state)
        token = mapped.state.get('masking_net.cls_token')
        if token is not None:
            mapped.state[self.position] = torch.zeros_like(token)
            mapped.added[self.position] = 'zero, as it starts in the released code; ours is part of the class token'
        _negate(mapped.state, 'masking_net.mlp_head.1')
        return mapped


def _negate(state: State, layer: str) -> None:
    for key in (f'{layer}.weight', f'{layer}.bias'):
        if key in state:
            state[key] = -state[key]


class MMSegMAEFormat(Format):
    """Files for ``backbone=dict(type='MAE', init_cfg=dict(type='Pretrained', checkpoint=FILE))`` of mmsegmentation.

    Its names are mmpretrain's without the prefix. Beside them it has layer scales and tables of relative positions, which an
    encoder of MAE's has not. Its own initialization makes the tables zero, and the scales ``init_values``.
    """

    name = 'mmseg-mae'
    container = 'state_dict'
    table = KeyTable(
        [(ours.removeprefix('backbone.'), ours) for _, ours in ENCODER if ours.startswith('backbone.')]
        + [(f'layers.{{n}}.gamma_{i}', ours) for i, (_, ours) in enumerate(LAYER_SCALE, start=1)]
    )
    signature = ('*layers.*.gamma_[12]', '*relative_position_*')
    left_reading = {
        '*.relative_position_index': 'an index that mmseg computes',
        'decode_head.*': _OTHER_TASK,
        'auxiliary_head.*': _OTHER_TASK,
        'neck.*': _OTHER_TASK,
    }
    left_writing = {
        'head.*': 'head of a classifier, not part of the backbone',
        'backbone.ln2.*': 'norm on the mean of the patches, not part of the backbone',
    }
    notes_reading = {
        'backbone.layers.0.attn.gamma1.weight': 'it has layer scales: give the backbone a layer_scale_init_value'
    }
    notes_writing = {
        'pos_embed': "set init_values=1.0 of mmseg's MAE: its layer scales are not in this file and must be neutral; 0.1 is "
        'the default',
        'ln1.weight': "ln1.* is the final norm, which mmseg's MAE has with final_norm=True only",
    }
    resize_function = f"{Format.resize_function}, as mmseg's MAE.resize_abs_pos_embed"

    def prepare(self, state: State) -> State:
        """Leave out the prefix that the backbone has in a segmentor."""
        return {key.removeprefix('backbone.'): value for key, value in state.items()}

    def knows(self, key: str) -> bool:
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
        return mapped

    def write(self, state: State) -> Mapped:
        mapped = super().write(state)
        if 'layers.0.gamma_1' in mapped.state:
            del mapped.notes['pos_embed']
        return mapped


class ViTDetFormat(Format):
    """Files for the ``ViT`` of ViTDet in detectron2 and mmdetection's project, which reads MAE's names under 'model'.

    It drops the class token and the final norm; of the position embedding it skips the class token's row, so the row stays.
    A trained ViTDet has window attention and relative positions, so it is written only, never read.
    """

    name = 'vitdet'
    table = KeyTable(pair for pair in ENCODER if pair[0] not in ('cls_token', 'norm.{p}', 'fc_norm.{p}', 'head.{p}'))
    readable = False
    square_only = True
    resize_function = f"{Format.resize_function}, as ViTDet's get_abs_pos"
    left_writing = {
        'backbone.cls_token': 'class token, which ViTDet has not',
        'backbone.ln[12].*': 'final norm, which ViTDet has not',
        'head.*': 'head of a classifier, not part of the backbone',
    }


# A file is of the first format that recognizes it: timm's names of the encoder are MAE's and CL-MAE's too.
FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        MMSegMAEFormat(), CLMAEFormat(), MLOMAEFormat(), MAEFormat(), MMMLOFormat(), TimmFormat(), ViTDetFormat()
    )
}


def get_format(name: str) -> Format:
    """Look a format up.

    Raises:
        ConversionError: There is none of that name.
    """
    if name not in FORMATS:
        raise ConversionError(f'unknown format {name!r}; there are {", ".join(sorted(FORMATS))}')
    return FORMATS[name]


def detect_format(state: Mapping[str, Tensor], source: str) -> Format:
    """Tell a file's format by its keys.

    Raises:
        ConversionError: It is of none, with the closest one and the keys that do not belong to it.
    """
    for format in FORMATS.values():
        if format.recognizes(state):
            return format
    guess, unknown = closest_format(state)
    if len(unknown) == len(state):
        raise ConversionError(
            f'the format of {source} is unknown: none of its {len(state)} keys is, for example {format_list(list(state), 3)}'
        )
    raise ConversionError(
        f'the format of {source} is unknown. The closest is {guess.name}, which has no keys such as '
        f'{format_list(unknown, 3)}; if it is of that format, say --from {guess.name}'
    )


def closest_format(state: Mapping[str, Tensor]) -> tuple[Format, list[str]]:
    """Find the format that knows most of a file's keys, and the keys that it does not know.

    Of several the plainest counts: all that MAE's descendants add to timm's names comes before it in ``FORMATS``.
    """
    unknown = {
        format.name: [key for key in format.prepare(dict(state)) if not format.knows(key)]
        for format in reversed(FORMATS.values())
        if format.readable
    }
    name = min(unknown, key=lambda name: len(unknown[name]))
    return FORMATS[name], unknown[name]
