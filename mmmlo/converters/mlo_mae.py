"""The files of the released MLO-MAE: one for ImageNet, up to three for CIFAR."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .base import Mapped, State
from .keys import KeyTable
from .mae import MAEFormat

_PARTS = ('masking_module', 'finetune_module')
_MASKER = ('first_hidden_layer.', 'output_layer.')
_HEAD = {f'{module}.{name}' for module in ('fc_norm', 'head') for name in ('weight', 'bias')}


class MLOMAEFormat(MAEFormat):
    """Files of https://github.com/Alexiland/MLO-MAE.

    The ImageNet script writes one file with ``model``, ``masking_module`` and ``finetune_module``, the CIFAR scripts write
    pretrain.pth, masking.pth and finetune.pth. Here the weights of the latter two have their module's name as a prefix.
    """

    name = 'mlo-mae'
    library = 'the released MLO-MAE, ImageNet and CIFAR'
    table = KeyTable(
        [
            *MAEFormat.table.pairs,
            ('masking_module.first_hidden_layer.fc.{p}', 'masker.layers.1.{p}'),
            ('masking_module.output_layer.{p}', 'masker.layers.3.{p}'),
            ('finetune_module.fc_norm.{p}', 'downstream.norm.{p}'),
            ('finetune_module.head.{p}', 'downstream.fc.{p}'),
        ]
    )
    signature = ('masking_module.*', 'finetune_module.*', 'first_hidden_layer.*')
    masker = 'MLPMasker'
    masker_words = 'an MLPMasker'
    square_only = True

    def prepare(self, state: State) -> State:
        """Give the bare weights of masking.pth and finetune.pth their prefix."""
        if set(state) == _HEAD:
            return {f'finetune_module.{key}': value for key, value in state.items()}
        return {f'masking_module.{key}' if key.startswith(_MASKER) else key: value for key, value in state.items()}

    def drops_writing(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        """Patterns of our keys that have no place here, and why."""
        drops = super().drops_writing(state)
        del drops['downstream.*']
        return drops

    def read(self, state: State) -> Mapped:
        """Translate to our names."""
        mapped = super().read(state)
        mapped.notes['masker.layers.1.weight'] = "the masker is an MLPMasker with act_cfg=dict(type='ReLU')"
        return mapped

    def write(self, state: State) -> Mapped:
        """Translate from our names."""
        mapped = super().write(state)
        name = 'masking_module.output_layer.weight'
        mapped.notes[name] = "the released masking network has ReLU; an MLPMasker's default is GELU"
        return mapped

    def content(self, state: State, meta: dict[str, Any]) -> dict[str, Any]:
        """The ImageNet script's layout."""
        parts = {
            part: {key.removeprefix(f'{part}.'): value for key, value in state.items() if key.startswith(f'{part}.')}
            for part in _PARTS
        }
        rest = {key: value for key, value in state.items() if key.split('.')[0] not in _PARTS}
        return {'model': rest, **{part: weights for part, weights in parts.items() if weights}, 'meta': meta}
