"""What a file format is to the converter: names, what it has no place for, and how it resizes positions."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor

from mmmlo.utils.checkpoints import CheckpointError
from mmmlo.utils.text import format_list

from .names import KeyTable

__all__ = ['ConversionError', 'Format', 'Grid', 'Mapped', 'State', 'explain_refusal', 'masker_kind']

State = dict[str, Tensor]
Grid = tuple[int, int]

# What other transformers have and a plain one has no place for; the first that is found names them.
_REFUSED = {
    r'relative_position|rel_pos': 'relative positions, as BEiT, Swin and SAM',
    r'(^|\.)(q|v)_bias$|(gamma|lambda)_[12]$': 'biases or layer scales of its own kind, as BEiT',
    r'(reg|register|storage)_tokens?$': 'register tokens, as DINOv2 with registers and DINOv3',
    r'rope': 'rotary positions, as DINOv3 and EVA-02',
    r'(dist|distillation)_token$': "a distillation token, as DeiT's distilled models",
    r'(mlp|ffn)\.(w\d|w12|fc1_g|weights_)': 'gated hidden layers, as DINOv2 giant and EVA-02',
    r'norm_pre|ln_pre|pre_layrnorm|^visual\.|vision_model\.': 'a norm before its blocks, as CLIP',
}
# Modules on top of an encoder that may stand within its prefix.
_HEADS = re.compile(r'(\w*head|head_dist|heads|fc|classifier|pooler|pre_logits|projector|predictor|decoder)\.')


class ConversionError(CheckpointError):
    """A checkpoint cannot be converted as asked for."""


@dataclass
class Mapped:
    """Half a conversion: to our keys, or from them."""

    state: State = field(default_factory=dict)  # under the new names
    names: dict[str, str] = field(default_factory=dict)  # old: new
    dropped: dict[str, str] = field(default_factory=dict)  # old: why
    added: dict[str, str] = field(default_factory=dict)  # new ones that stand for no old one: what they are
    notes: dict[str, str] = field(default_factory=dict)  # new: what a user must know who has this weight


class Format:
    """A library's way to name and keep the weights of an encoder, and of what was trained beside it.

    A format translates to the names of mmpretrain and this project, called *ours*, and back. Values that differ, as the
    sign of a masker's last layer, are changed by the format's own :meth:`read` and :meth:`write`.
    """

    name: str  # on the command line
    container = 'model'  # the key of a .pth file that holds the weights
    table: KeyTable  # its names and ours
    spellings: tuple[tuple[str, Any], ...] = ()  # regular expressions, and what takes their place before the table is asked
    signature: tuple[str, ...] = ()  # patterns of keys that no format has which comes later in FORMATS
    left_reading: dict[str, str] = {}  # patterns of its keys that have no place with us: why
    left_writing: dict[str, str] = {}  # the same of our keys here, beside those that drops() finds
    # Our key: what a user must know who has it.
    notes_reading = {
        'backbone.layers.0.attn.gamma1.weight': 'it has layer scales: give the backbone layer_scale_init_value=1.0'
    }
    notes_writing: dict[str, str] = {}  # the same by its own key
    masker: str | None = None  # the kind of masking network that it has a place for, as of masker_kind()
    readable = True
    writable = True
    square_only = False  # whether the library refuses positions of other grids
    resize_function = "mmpretrain's resize_pos_embed (bicubic, align_corners=False, no antialiasing)"

    def prepare(self, keys: Iterable[str]) -> dict[str, list[str]]:
        """Give the keys of a file the names of the table; those that share a name are concatenated, in this order."""
        names = defaultdict(list)
        for key in keys:
            name = key
            for pattern, spelling in self.spellings:
                name = re.sub(pattern, spelling, name)
            names[name].append(key)
        return names

    def to_ours(self, key: str) -> str | None:
        """Give our name of one of its weights; None if it has none."""
        return self.table.to_ours(key)

    def drops(self, state: State) -> dict[str, str]:
        """List patterns of our keys in ``state`` that have no place here, and why; the first that matches counts."""
        homeless = {key.split('.')[0] for key in state if self.table.to_theirs(key) is None and not key.endswith('.grid')}
        if masker_kind(state) != self.masker:
            homeless.add('masker')
        words = dict(downstream='downstream head', masker='masking network', neck='decoder', head='head')
        drops = {f'{name}.*': f'{words[name]} that {self.name} has no place for' for name in words if name in homeless}
        return {**drops, '*.grid': f'grid, which {self.name} takes from its image size', **self.left_writing}

    def read(self, state: State, beside: Iterable[str] = ()) -> Mapped:
        """Translate the names that :meth:`prepare` gives to ours; those ``beside`` the encoder need not be known."""
        mapped = _rename(state, self.to_ours, self.left_reading, f'{self.name} has no such weights', set(beside))
        mapped.notes.update(self.notes_reading)
        return mapped

    def write(self, state: State) -> Mapped:
        """Translate from our names, or raise :class:`ConversionError` for a weight of the encoder that has no place."""
        mapped = _rename(state, self.table.to_theirs, self.drops(state), f'{self.name} has no place for them')
        mapped.notes.update(self.notes_writing)
        return mapped

    def resize(self, position: Tensor, old: Grid, new: Grid) -> Tensor:
        """Resize position embeddings, 1 x (1 + L) x C, as the library does when it loads a file of another grid."""
        return resize_pos_embed(position, old, new)

    def content(self, state: State, meta: dict[str, Any]) -> dict[str, Any]:
        """Lay out what a ``.pth`` file of this format holds."""
        return {self.container: state, 'meta': meta}


def _rename(
    state: State, translate: Callable[[str], str | None], drops: Mapping[str, str], why: str, beside: Iterable[str] = ()
) -> Mapped:
    """Give every weight a new name, or a reason why it has none; ``drops`` has patterns of names, which go first."""
    mapped = Mapped()
    unknown = []
    for key, value in state.items():
        name = translate(key)
        if (reason := next((reason for pattern, reason in drops.items() if fnmatchcase(key, pattern)), None)) is not None:
            mapped.dropped[key] = reason
        elif key in beside and (name is None or name.startswith('backbone.')):
            mapped.dropped[key] = 'beside the encoder, not part of it'
        elif name is not None:
            mapped.names[key] = name
            mapped.state[name] = value
        elif _HEADS.match(key):
            mapped.dropped[key] = 'head of another kind, not part of the encoder'
        else:
            unknown.append(key)
    if unknown:
        raise ConversionError(
            f'{len(unknown)} of {len(state)} keys are unknown ({why}): {format_list(unknown, 3)}{explain_refusal(unknown)}'
        )
    return mapped


def explain_refusal(keys: Iterable[str]) -> str:
    """Say by what an encoder is no plain vision transformer, as a further sentence; nothing if no name tells."""
    for pattern, words in _REFUSED.items():
        if found := next((key for key in keys if re.search(pattern, key)), None):
            return f'. It is no plain vision transformer, which is all that fits here: {found} shows {words}'
    return ''


def masker_kind(state: Mapping[str, Tensor]) -> str | None:
    """Tell maskers apart by their weights under our names: the class, of ``ViTMasker`` with its head, or 'another'."""
    own = {key.removeprefix('masker.'): value for key, value in state.items() if key.startswith('masker.')}
    if not own:
        return None
    if own.keys() == {f'layers.{i}.{p}' for i in (1, 3) for p in ('weight', 'bias')}:
        return 'MLPMasker' if own['layers.1.weight'].ndim == own['layers.3.weight'].ndim == 2 else 'another'
    if 'cls_token' in own and 'norm.weight' in own:
        if 'head.0.weight' in own:
            return 'ViTMasker/mlp'
        if 'head.weight' in own:
            return 'ViTMasker/token' if len(own['head.weight']) == 1 else 'ViTMasker/linear'
    return 'another'
