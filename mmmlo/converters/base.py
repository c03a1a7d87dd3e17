"""What a file format is to the converter: names, what it has no place for, and how it resizes positions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor

from mmmlo.utils.checkpoints import CheckpointError
from mmmlo.utils.text import format_list

from .names import KeyTable

__all__ = ['ConversionError', 'Format', 'Grid', 'Mapped', 'State', 'masker_kind', 'rename']

State = dict[str, Tensor]
Grid = tuple[int, int]


class ConversionError(CheckpointError):
    """A checkpoint cannot be converted as asked for."""


@dataclass
class Mapped:
    """Half a conversion: to our keys, or from them.

    Attributes:
        state (dict[str, Tensor]): The weights under their new names.
        names (dict[str, str]): Old name and new name of what was kept.
        dropped (dict[str, str]): Old name of what was not, and why.
        added (dict[str, str]): New names that stand for no old one, and what they are.
        notes (dict[str, str]): What a user must know, by the new name of a weight that it is about.
    """

    state: State
    names: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


class Format:
    """A library's way to name and keep the weights of an encoder, and of what was trained beside it.

    A format translates to the names of mmpretrain and this project, called *ours*, and back. Values that differ, as the
    sign of a masker's last layer, are changed by the format's own :meth:`read` and :meth:`write`.

    Attributes:
        name (str): What the command line calls it.
        container (str): The key of a ``.pth`` file that holds the weights.
        table (KeyTable): Its names and ours.
        signature (tuple[str, ...]): Patterns of ``fnmatch``; a key that matches one occurs in this format alone, among those
            that come after it in ``FORMATS``.
        left_reading (dict[str, str]): Patterns of its keys that have no place with us, and why.
        left_writing (dict[str, str]): The same of our keys here, beside those that :meth:`drops` finds.
        notes_reading (dict[str, str]): What a user must know, by our key that it is about.
        notes_writing (dict[str, str]): The same by its own key.
        masker (str | None): The kind of masking network that it has a place for, as of :func:`masker_kind`.
        masker_words (str): The same in messages.
        has_decoder (bool): Whether it has a place for MAE's decoder.
        readable (bool): Whether such files can be converted from.
        square_only (bool): Whether the library refuses position embeddings of other grids.
        resize_function (str): What resizes position embeddings, in words.
    """

    name: str
    container = 'model'
    table: KeyTable
    signature: tuple[str, ...] = ()
    left_reading: dict[str, str] = {}
    left_writing: dict[str, str] = {}
    notes_reading: dict[str, str] = {}
    notes_writing: dict[str, str] = {}
    masker: str | None = None
    masker_words = ''
    has_decoder = False
    readable = True
    square_only = False
    resize_function = "mmpretrain's resize_pos_embed (bicubic, align_corners=False, no antialiasing)"

    def prepare(self, state: State) -> State:
        """Give names to weights that stand under names of no format; most need nothing."""
        return state

    def recognizes(self, state: Mapping[str, Tensor]) -> bool:
        """Tell whether these weights are of this format, by a name that is its alone."""
        return any(fnmatchcase(key, pattern) for key in state for pattern in self.signature)

    def knows(self, key: str) -> bool:
        """Tell whether a key is one of this format."""
        return self.table.to_ours(key) is not None or _match(self.left_reading, key) is not None

    def drops(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        """List patterns of our keys in ``state`` that have no place here, and why; the first that matches counts."""
        drops = {
            'ema_backbone.*': "moving average of the encoder's weights, beside the weights themselves",
            'backbone.grid': f'grid of the position embedding, which {self.name} takes from its image size',
        }
        if self.table.to_theirs('downstream.fc.weight') is None:
            drops['downstream.*'] = f'head that guides the masks, not part of {self.name}'
        if self.masker is None:
            drops['masker.*'] = f'masking network, not part of {self.name}'
        elif masker_kind(state) != self.masker:
            drops['masker.*'] = f'masking network of another kind than the released one, {self.masker_words}'
        if not self.has_decoder:
            drops['neck.*'] = f'decoder, not part of {self.name}'
        elif 'neck.decoder_pos_embed' not in state:
            drops['neck.*'] = "a neck that is not MAE's decoder"
        else:
            drops['neck.grid'] = f'grid of the decoder, which {self.name} takes from its image size'
        if any(key.startswith('head.') and self.table.to_theirs(key) is None for key in state):
            drops['head.*'] = f'head of another kind than {self.name} has'
        return drops | self.left_writing

    def read(self, state: State) -> Mapped:
        """Translate to our names.

        Raises:
            ConversionError: A key is unknown.
        """
        mapped = rename(state, self.table.to_ours, self.left_reading, f'{self.name} has no such weights')
        mapped.notes.update(self.notes_reading)
        return mapped

    def write(self, state: State) -> Mapped:
        """Translate from our names.

        Raises:
            ConversionError: There is no place for a weight of the encoder.
        """
        mapped = rename(state, self.table.to_theirs, self.drops(state), f'{self.name} has no place for them')
        mapped.notes.update(self.notes_writing)
        return mapped

    def resize(self, position: Tensor, old: Grid, new: Grid) -> Tensor:
        """Resize position embeddings, 1 x (1 + L) x C, as the library does when it loads a file of another grid."""
        return resize_pos_embed(position, old, new)

    def content(self, state: State, meta: dict[str, Any]) -> dict[str, Any]:
        """Lay out what a ``.pth`` file of this format holds."""
        return {self.container: state, 'meta': meta}


def rename(state: State, translate: Callable[[str], str | None], drops: Mapping[str, str], why: str) -> Mapped:
    """Give every weight a new name, or a reason why it has none.

    Args:
        state (dict[str, Tensor]): The weights.
        translate (Callable[[str], str | None]): Gives the new name of an old one, None if it is unknown.
        drops (Mapping[str, str]): Patterns of names that are left out on purpose, and why. They go first.
        why (str): What is wrong with unknown names.

    Raises:
        ConversionError: A name is unknown.
    """
    mapped = Mapped({})
    unknown = []
    for key, value in state.items():
        if (reason := _match(drops, key)) is not None:
            mapped.dropped[key] = reason
        elif (name := translate(key)) is not None:
            mapped.names[key] = name
            mapped.state[name] = value
        else:
            unknown.append(key)
    if unknown:
        raise ConversionError(f'{len(unknown)} of {len(state)} keys are unknown ({why}): {format_list(unknown, 3)}')
    return mapped


def masker_kind(state: Mapping[str, Tensor]) -> str | None:
    """Tell maskers apart by their weights under our names, since other projects know one kind each.

    Returns:
        str | None: The class, of ``ViTMasker`` with its head, as 'ViTMasker/linear'; 'another' for one that is not known,
        None if there is no masker.
    """
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


def _match(patterns: Mapping[str, str], key: str) -> str | None:
    """Find the reason of the first pattern that a key matches."""
    return next((reason for pattern, reason in patterns.items() if fnmatchcase(key, pattern)), None)
