"""From one format to another, always by way of our names."""

import os
import os.path as osp
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from mmmlo.utils.checkpoints import CheckpointError, file_hash, find_weights, read_content
from mmmlo.utils.progress import track
from mmmlo.utils.text import format_list
from mmmlo.utils.whole_file import replace_whole
from mmmlo.version import __version__

from .base import ConversionError, Format, Grid, State
from .encoder import EncoderShape, encoder_shape, resize_to, source_grid
from .formats import MLOMAEFormat, detect_format, get_format

__all__ = ['Conversion', 'ConversionReport', 'convert', 'write_file']


@dataclass
class ConversionReport:
    """Where each key of the source went."""

    title: str
    mapped: dict[str, str] = field(default_factory=dict)  # key of the source: the one that holds its value now
    dropped: dict[str, str] = field(default_factory=dict)  # key of the source: why it went nowhere
    added: dict[str, str] = field(default_factory=dict)  # new key that stands for none of the source: what it is
    resized: dict[str, tuple[Grid, Grid, str]] = field(default_factory=dict)  # new key: grid before and after, function
    notes: list[str] = field(default_factory=list)  # what a user of the new file must know

    def __str__(self) -> str:
        """Print one line with the counts, and the details below it."""
        counts = [f'{len(self.mapped)} mapped', f'{len(self.dropped)} dropped']
        counts += [f'{len(keys)} {word}' for word, keys in (('resized', self.resized), ('added', self.added)) if keys]
        lines = [f'{self.title}: {", ".join(counts)}', *_by_reason('dropped', self.dropped)]
        for key, (old, new, function) in self.resized.items():
            lines.append(f'  resized: {key} from {old[0]} x {old[1]} to {new[0]} x {new[1]} patches by {function}')
        lines += _by_reason('added', self.added)
        return '\n'.join([*lines, *(f'  note: {note}' for note in self.notes)])


class Conversion(NamedTuple):
    """A converted checkpoint, not yet written."""

    source: Format
    target: Format
    given: State  # under the source's names
    state: State  # under the target's
    read: State  # under ours
    ours: State  # under ours, with resized positions
    shape: EncoderShape
    old_grid: Grid
    grid: Grid
    report: ConversionReport
    meta: dict[str, str]  # to be written beside the weights


def convert(
    paths: Sequence[str],
    target_name: str,
    source_name: str | None = None,
    grid: Grid | None = None,
    asked_source_grid: Grid | None = None,
    key: str | None = None,
) -> Conversion:
    """Convert a checkpoint.

    Args:
        paths (Sequence[str]): The file; of the released MLO-MAE on CIFAR the several files of a run.
        target_name (str): Format to convert to.
        source_name (str, optional): Format to convert from. Defaults to None, told by the keys.
        grid (tuple[int, int], optional): Resize the position embeddings to it. Defaults to None, as they are.
        asked_source_grid (tuple[int, int], optional): Their grid in the file, where neither it nor a square tells.
        key (str, optional): Which encoder of several to take; see :func:`mmmlo.utils.checkpoints.find_weights`.

    Raises:
        CheckpointError: A file cannot be read, is of an unknown format or architecture, or has keys that nobody knows.
    """
    target, name = get_format(target_name), ' + '.join(paths)
    keys: dict[str, str] = {}  # name relative to the encoder: name in the file
    state: State = {}
    for path in track(paths, 'reading checkpoints'):
        part, own_keys, beside, file_meta = _read(path, key, several=len(paths) > 1)
        if twice := sorted(set(part) & set(state)):
            raise ConversionError(f'{path} holds weights that the files before it hold too: {format_list(twice, 3)}')
        state.update(part)
        keys.update(own_keys)
    source = get_format(source_name) if source_name is not None else detect_format(state, name)
    if not (source.readable and target.writable):
        one = source.name if not source.readable else target.name
        raise ConversionError(f'nothing is converted from {source.name} to {target.name}: {one} works the other way only')
    names = source.prepare(state)
    given = {new: state[olds[0]] if not olds[1:] else torch.cat([state[old] for old in olds]) for new, olds in names.items()}

    try:
        reading = source.read(given, [new for new, olds in names.items() if olds[0] in beside])
    except ConversionError as error:
        raise ConversionError(f'{name} as {source.name}: {error}') from error
    if not any(key.startswith('backbone.') for key in reading.state):
        raise ConversionError(
            f'{name} holds no encoder, but keys such as {format_list(list(keys.values()), 3)}; '
            'of the released MLO-MAE on CIFAR, name pretrain.pth before masking.pth and finetune.pth'
        )
    shape = encoder_shape(reading.state, name)
    old = source_grid(reading.state, file_meta, asked_source_grid, name)
    new_grid = grid or old
    if target.square_only and new_grid[0] != new_grid[1]:
        raise ConversionError(f'{target.name} knows square grids only, not {new_grid[0]} x {new_grid[1]}')
    ours, resized, unfit = resize_to(reading.state, old, new_grid, target)
    try:
        writing = target.write(ours)
    except ConversionError as error:
        raise ConversionError(f'{name} to {target.name}: {error}') from error

    how = ', recognized by its keys' if source_name is None else ''
    report = ConversionReport(f'Key report of {name} ({source.name}{how}) to {target.name}')
    for own, olds in names.items():
        middle = reading.names.get(own, '')
        reason = reading.dropped.get(own) or unfit.get(middle) or writing.dropped.get(middle)
        for old_name in olds:
            if reason is None:
                report.mapped[keys[old_name]] = writing.names[middle]
            else:
                report.dropped[keys[old_name]] = reason
    for middle, final in writing.names.items():
        if middle not in reading.state:
            report.added[final] = 'the grid of the position embeddings'
        if middle in resized:
            report.resized[final] = (old, new_grid, target.resize_function)
    report.added |= writing.added
    report.notes += [note for middle, note in reading.notes.items() if middle in writing.names]
    report.notes += [note for final, note in writing.notes.items() if final in writing.state]
    meta = {
        'source': name, 'sha256': ' + '.join(file_hash(path) if osp.isfile(path) else '' for path in paths),
        'from': source.name, 'to': target.name, 'grid': f'{new_grid[0]}x{new_grid[1]}', 'mmmlo': __version__,
    }
    kept = {new: given[new] for new in reading.names}
    return Conversion(source, target, kept, writing.state, reading.state, ours, shape, old, new_grid, report, meta)


def _read(path: str, key: str | None, several: bool) -> tuple[State, dict[str, str], set[str], dict[str, Any]]:
    """Read a file: weights by their names within the encoder, what these are in the file, those beside it, the meta."""
    content = read_content(path)
    checkpoint = find_weights(content, path, key)
    weights, meta, prefix = checkpoint.state_dict, checkpoint.meta, checkpoint.prefix
    parent = prefix.rstrip('.').rpartition('.')[0]
    parent = f'{parent}.' if parent else ''
    keys = {full.removeprefix(prefix): full for full in weights if full.startswith(prefix)}
    beside = {full.removeprefix(parent): full for full in weights if not full.startswith(prefix)}
    state = {name: weights[full] for name, full in {**beside, **keys}.items()}
    if isinstance(content, dict) and isinstance(content.get('model'), dict):
        # What the released MLO-MAE writes beside the autoencoder.
        for part in MLOMAEFormat.parts:
            for name, value in (content.get(part) or {}).items():
                if isinstance(value, Tensor):
                    state[f'{part}.{name.removeprefix("module.")}'] = value
    if several:
        state = {name: state[old] for name, (old,) in MLOMAEFormat().prepare(state).items()}
    # A .safetensors file knows no nested values.
    found = dict(meta.get('converter') or meta)
    return state, {name: keys.get(name, beside.get(name, name)) for name in state}, set(beside) - set(keys), found


def write_file(path: str, state: State, target: Format, meta: dict[str, str]) -> None:
    """Write weights under the target's names, and ``meta`` beside them, as a whole, or raise :class:`CheckpointError`.

    A name that ends in ``.safetensors`` writes that format, any other PyTorch's.
    """
    state = {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    try:
        os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
        with replace_whole(path) as temporary:
            if path.endswith('.safetensors'):
                save_file(state, temporary, meta)
            else:
                torch.save(target.content(state, dict(converter=meta)), temporary)
    except (OSError, RuntimeError) as error:  # PyTorch's writer makes the latter of the former
        raise CheckpointError(f'{path} cannot be written: {str(error).splitlines()[0]}') from error


def _by_reason(what: str, keys: dict[str, str]) -> list[str]:
    grouped = defaultdict(list)
    for key, reason in keys.items():
        grouped[reason].append(key)
    return [f'  {what}: {len(names)}, {reason}: {format_list(names)}' for reason, names in grouped.items()]
