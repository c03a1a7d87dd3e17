"""The formats, one class each, and which of them a file is of."""

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from mmmlo.utils.text import format_list

from .base import ConversionError, Format, Grid, Mapped, State, explain_refusal
from .names import DECODER, ENCODER, LAYER_SCALE, KeyTable, block_pairs

__all__ = ['FORMATS', 'detect_format', 'get_format']


class MMMLOFormat(Format):
    """Checkpoints of this project and of mmpretrain, and files that hold such an encoder alone."""

    name = 'mmmlo'
    container = 'state_dict'
    table = KeyTable((ours, ours) for _, ours in [*ENCODER, *LAYER_SCALE, *DECODER, ('', 'backbone.grid')])
    signature = ('layers.*',)

    def to_ours(self, key: str) -> str | None:
        """Keep the names; those of the encoder get their prefix."""
        beside = key.split('.')[0] in ('neck', 'masker', 'downstream', 'head')
        return key if beside else self.table.to_ours(f'backbone.{key}')

    def write(self, state: State) -> Mapped:
        return Mapped(dict(state), {key: key for key in state})


class TimmFormat(Format):
    """Files for ``timm.create_model('vit_...', checkpoint_path=FILE)``; DINO, DINOv2 and MoCo v3 have these names too."""

    name = 'timm'
    container = 'state_dict'
    table = KeyTable([*ENCODER, *LAYER_SCALE])
    spellings = ((r'^blocks\.\d+\.(\d+)\.', r'blocks.\1.'),)  # chunks, by which DINOv2 splits its training
    signature = ('blocks.*',)
    left_reading = {'mask_token': 'token of masked patches, which pretraining alone uses'}
    resize_function = "timm's resample_abs_pos_embed (bicubic, antialiased)"

    def resize(self, position: Tensor, old: Grid, new: Grid) -> Tensor:
        from timm.layers import resample_abs_pos_embed

        return resample_abs_pos_embed(position, list(new), list(old), num_prefix_tokens=1)


class MAEFormat(Format):
    """Files of https://github.com/facebookresearch/mae, pretrained (with or without decoder) and fine-tuned."""

    name = 'mae'
    table = KeyTable([*ENCODER, *DECODER])
    signature: tuple[str, ...] = ('decoder_*',)


class HuggingFaceFormat(MAEFormat):
    """Files of transformers: ViT, ViTMAE, and DINOv2 without registers; read only."""

    name = 'huggingface'
    table = KeyTable([*ENCODER, *LAYER_SCALE, *DECODER])
    spellings = (
        (r'^embeddings\.cls_token', 'cls_token'),
        (r'^embeddings\.position_embeddings', 'pos_embed'),
        (r'^embeddings\.patch_embeddings\.projection', 'patch_embed.proj'),
        (r'^encoder\.layer\.', 'blocks.'),
        (r'^decoder\.decoder_layers\.', 'decoder_blocks.'),
        (r'^decoder\.(?=mask_token|decoder_)', ''),
        (r'\.(layernorm_before|layernorm_after)\.', lambda match: f'.norm{1 + match[1].endswith("after")}.'),
        (r'\.attention\.attention\.(query|key|value)\.', '.attn.qkv.'),
        (r'\.attention\.output\.dense\.', '.attn.proj.'),
        (r'\.intermediate\.dense\.', '.mlp.fc1.'),
        (r'(?<=\d)\.output\.dense\.', '.mlp.fc2.'),
        (r'\.layer_scale(\d)\.lambda1', r'.ls\1.gamma'),
        (r'^layernorm\.', 'norm.'),
        (r'^classifier\.', 'head.'),
    )
    signature = ('embeddings.patch_embeddings.*',)
    left_reading = {'embeddings.mask_token': TimmFormat.left_reading['mask_token']}
    writable = False

    def prepare(self, keys: Iterable[str]) -> dict[str, list[str]]:
        """Join queries, keys and values, in this order."""
        return super().prepare(sorted(keys, key=lambda key: 1 * ('.key.' in key) + 2 * ('.value.' in key)))


class TorchvisionFormat(Format):
    """Files of torchvision's ``vit_b_16`` and its like; read only."""

    name = 'torchvision'
    table = KeyTable(ENCODER)
    spellings = (
        ('^class_token', 'cls_token'),
        (r'^encoder\.pos_embedding', 'pos_embed'),
        (r'^conv_proj\.', 'patch_embed.proj.'),
        (r'^encoder\.layers\.encoder_layer_', 'blocks.'),
        (r'\.ln_(\d)\.', r'.norm\1.'),
        (r'\.self_attention\.in_proj_', '.attn.qkv.'),
        (r'\.self_attention\.out_proj\.', '.attn.proj.'),
        (r'\.mlp\.(0|linear_1)\.', '.mlp.fc1.'),
        (r'\.mlp\.(3|linear_2)\.', '.mlp.fc2.'),
        (r'^encoder\.ln\.', 'norm.'),
        (r'^heads\.head\.', 'head.'),
    )
    signature = ('encoder.layers.encoder_layer_*',)
    writable = False


class MLOMAEFormat(MAEFormat):
    """Files of https://github.com/Alexiland/MLO-MAE.

    The ImageNet script writes one file with ``model``, ``masking_module`` and ``finetune_module``, the CIFAR scripts write
    pretrain.pth, masking.pth and finetune.pth. Here the weights of the latter two have their module's name as a prefix.
    """

    name = 'mlo-mae'
    table = KeyTable([
        *MAEFormat.table.pairs,
        ('masking_module.first_hidden_layer.fc.{p}', 'masker.layers.1.{p}'),
        ('masking_module.output_layer.{p}', 'masker.layers.3.{p}'),
        ('finetune_module.fc_norm.{p}', 'downstream.norm.{p}'),
        ('finetune_module.head.{p}', 'downstream.fc.{p}'),
    ])
    notes_reading = {'masker.layers.1.weight': "the masker is an MLPMasker with act_cfg=dict(type='ReLU')"}
    notes_writing = {'masking_module.output_layer.weight': "the released masker has ReLU; an MLPMasker's default is GELU"}
    parts = ('masking_module', 'finetune_module')
    signature = ('masking_module.*', 'finetune_module.*', 'first_hidden_layer.*')
    masker = 'MLPMasker'
    square_only = True

    def prepare(self, keys: Iterable[str]) -> dict[str, list[str]]:
        """Give the bare weights of masking.pth and finetune.pth their prefix."""
        keys = list(keys)
        if set(keys) == {f'{module}.{p}' for module in ('fc_norm', 'head') for p in ('weight', 'bias')}:
            return {f'finetune_module.{key}': [key] for key in keys}
        masker = ('first_hidden_layer.', 'output_layer.')
        return {f'masking_module.{key}' if key.startswith(masker) else key: [key] for key in keys}

    def content(self, state: State, meta: dict[str, Any]) -> dict[str, Any]:
        """Lay the weights out as the ImageNet script does."""
        content: dict[str, Any] = {}
        for key, value in state.items():
            part, _, name = key.partition('.')
            part, name = (part, name) if part in self.parts else ('model', key)
            content.setdefault(part, {})[name] = value
        return {**content, 'meta': meta}


class CLMAEFormat(MAEFormat):
    """Files of https://github.com/ristea/cl-mae.

    The released masking network returns the weight by which a patch is kept, ours the probability that it is masked, so the
    last layer changes its sign. Its class token has a position embedding, which starts at zero; ours is their sum.
    """

    name = 'cl-mae'
    table = KeyTable([
        *MAEFormat.table.pairs,
        ('masking_net.cls_token', 'masker.cls_token'),
        *block_pairs('masking_net.blocks', 'masker.layers'),
        ('masking_net.mlp_head.0.{p}', 'masker.norm.{p}'),
        ('masking_net.mlp_head.1.{p}', 'masker.head.{p}'),
    ])
    signature = ('masking_net.*',)
    masker = 'ViTMasker/linear'
    square_only = True
    notes_reading = {'masker.head.weight': "the masker is a ViTMasker(head='linear'); its scores are 1 minus the released"}
    position = 'masking_net.pos_embed'

    def read(self, state: State, beside: Iterable[str] = ()) -> Mapped:
        """Translate to our names and to our polarity."""
        position = state.get(self.position)
        mapped = super().read({key: value for key, value in state.items() if key != self.position}, beside)
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
    encoder of MAE's has not. Its own initialization makes the tables zero, and the scales ``init_values``. Written only.
    """

    name = 'mmseg-mae'
    container = 'state_dict'
    table = KeyTable(
        [(ours.removeprefix('backbone.'), ours) for _, ours in ENCODER if ours.startswith('backbone.')]
        + [(f'layers.{{n}}.gamma_{i}', ours) for i, (_, ours) in enumerate(LAYER_SCALE, start=1)]
    )
    readable = False
    left_writing = {'backbone.ln2.*': 'norm on the mean of the patches, not part of the backbone'}
    notes_writing = {
        'pos_embed': "set init_values=1.0 of mmseg's MAE (default: 0.1): its layer scales are not here and must be neutral",
        'ln1.weight': "ln1.* is the final norm, which mmseg's MAE has with final_norm=True only",
    }

    def write(self, state: State) -> Mapped:
        mapped = super().write(state)
        if 'layers.0.gamma_1' in mapped.state:
            del mapped.notes['pos_embed']
        return mapped


# A file is of the first format that recognizes it: timm's names of the encoder are MAE's and CL-MAE's too.
FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        CLMAEFormat(), MLOMAEFormat(), HuggingFaceFormat(), TorchvisionFormat(), MAEFormat(), MMMLOFormat(), TimmFormat(),
        MMSegMAEFormat(),
    )
}


def get_format(name: str) -> Format:
    """Look a format up, or raise a :class:`ConversionError`."""
    if name not in FORMATS:
        raise ConversionError(f'unknown format {name!r}; there are {", ".join(sorted(FORMATS))}')
    return FORMATS[name]


def detect_format(keys: Collection[str], source: str) -> Format:
    """Tell a file's format by its keys, or raise a :class:`ConversionError`."""
    for format in FORMATS.values():
        if any(fnmatchcase(key, pattern) for key in keys for pattern in format.signature):
            return format
    raise ConversionError(
        f'the format of {source} is unknown: it has keys such as {format_list(list(keys), 3)}{explain_refusal(keys)}'
    )
