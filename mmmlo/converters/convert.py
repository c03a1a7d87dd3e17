"""From one format to another, always by way of our names."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mmmlo.utils.text import format_list
from mmmlo.version import __version__

from .base import ConversionError, Format, Grid, State
from .encoder import EncoderShape, encoder_shape, resize_to, source_grid
from .files import read_sources
from .formats import closest_format, detect_format, get_format

__all__ = ['Conversion', 'ConversionReport', 'convert']


@dataclass
class ConversionReport:
    """Where each key of the source went.

    Attributes:
        source (str): The source, in words.
        source_format (str): Its format.
        target_format (str): The format of what was made.
        detected (bool): Whether the source's format was recognized by its keys.
        mapped (dict[str, str]): Keys of the source and the keys that hold their values now.
        dropped (dict[str, str]): Keys of the source that went nowhere, and why.
        added (dict[str, str]): New keys that stand for none of the source, and what they are.
        resized (dict[str, tuple[Grid, Grid, str]]): Keys with their grid before and after, and the function that resized.
        notes (list[str]): What a user of the new file must know.
    """

    source: str
    source_format: str
    target_format: str
    detected: bool = False
    mapped: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)
    resized: dict[str, tuple[Grid, Grid, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Print one line with the counts, and the details below it."""
        counts = [f'{len(self.mapped)} mapped', f'{len(self.dropped)} dropped']
        counts += [f'{len(keys)} {word}' for word, keys in (('resized', self.resized), ('added', self.added)) if keys]
        how = ', recognized by its keys' if self.detected else ''
        lines = [f'Key report of {self.source} ({self.source_format}{how}) to {self.target_format}: {", ".join(counts)}']
        lines += _by_reason('dropped', self.dropped)
        for key, (old, new, function) in self.resized.items():
            lines.append(f'  resized: {key} from {old[0]} x {old[1]} to {new[0]} x {new[1]} patches by {function}')
        lines += _by_reason('added', self.added)
        return '\n'.join([*lines, *(f'  note: {note}' for note in self.notes)])


class Conversion(NamedTuple):
    """A converted checkpoint, not yet written.

    Attributes:
        source (Format): Format of what was read.
        target (Format): Format of the result.
        given (dict[str, Tensor]): The weights as they were read, under the source's names.
        read (dict[str, Tensor]): The same under our names.
        ours (dict[str, Tensor]): The same with the position embeddings resized.
        state (dict[str, Tensor]): Under the target's names.
        shape (EncoderShape): Size of the encoder.
        old_grid (tuple[int, int]): Grid of the position embeddings that were read.
        grid (tuple[int, int]): Grid of the result's.
        report (ConversionReport): What became of every key.
        meta (dict[str, str]): What to write beside the weights.
    """

    source: Format
    target: Format
    given: State
    read: State
    ours: State
    state: State
    shape: EncoderShape
    old_grid: Grid
    grid: Grid
    report: ConversionReport
    meta: dict[str, str]


def convert(
    paths: Sequence[str],
    target_name: str,
    source_name: str | None = None,
    grid: Grid | None = None,
    asked_source_grid: Grid | None = None,
) -> Conversion:
    """Convert a checkpoint.

    Args:
        paths (Sequence[str]): The file; of the released MLO-MAE on CIFAR the several files of a run.
        target_name (str): Format to convert to.
        source_name (str, optional): Format to convert from. Defaults to None, told by the keys.
        grid (tuple[int, int], optional): Resize the position embeddings to it. Defaults to None, as they are.
        asked_source_grid (tuple[int, int], optional): Their grid in the file, where it is no square and the file does not
            tell. Defaults to None.

    Returns:
        Conversion: The weights in both formats, and the report.

    Raises:
        CheckpointError: A file cannot be read, is of an unknown format or architecture, or has keys that nobody knows.
    """
    target = get_format(target_name)
    read = read_sources(paths)
    source = get_format(source_name) if source_name is not None else detect_format(read.state, read.name)
    if not source.readable:
        raise ConversionError(f'{source.name} is a format to convert to; nothing is converted from it')
    given = source.prepare(read.state)
    originals = dict(zip(given, read.state))

    try:
        reading = source.read(given)
    except ConversionError as error:
        guess, unknown = closest_format(read.state)
        hint = '' if guess is source or unknown else f'. It looks like {guess.name}: say --from {guess.name}'
        raise ConversionError(f'{read.name} as {source.name}: {error}{hint}') from error
    if not any(key.startswith('backbone.') for key in reading.state):
        raise ConversionError(
            f'{read.name} holds no encoder, but keys such as {format_list(list(read.state), 3)}; '
            'of the released MLO-MAE on CIFAR, name pretrain.pth before masking.pth and finetune.pth'
        )
    shape = encoder_shape(reading.state, read.name)
    old = source_grid(reading.state, read.meta, asked_source_grid, read.name)
    new = grid or old
    if target.square_only and new[0] != new[1]:
        raise ConversionError(f'{target.name} knows square grids only, not {new[0]} x {new[1]}')
    ours, resized, unfit = resize_to(reading.state, old, new, target)
    try:
        writing = target.write(ours)
    except ConversionError as error:
        raise ConversionError(f'{read.name} to {target.name}: {error}') from error

    report = ConversionReport(read.name, source.name, target.name, detected=source_name is None)
    sources: dict[str, list[str]] = defaultdict(list)  # our key: those of the source that it was made of
    for key, name in reading.names.items():
        sources[name].append(originals[key])
    report.dropped.update({originals[key]: reason for key, reason in reading.dropped.items()})
    for name, reason in {**unfit, **writing.dropped}.items():
        report.dropped.update(dict.fromkeys(sources[name], reason))
    for name, final in writing.names.items():
        report.mapped.update(dict.fromkeys(sources[name], final))
    report.added.update(writing.added)
    for key in ('backbone.grid', 'neck.grid'):
        if key in writing.names and key not in reading.state:
            report.added[writing.names[key]] = 'the grid of the position embeddings'
    for key in resized:
        if key in writing.names:
            report.resized[writing.names[key]] = (old, new, target.resize_function)
    report.notes += [note for key, note in reading.notes.items() if key in writing.names]
    report.notes += [note for key, note in writing.notes.items() if key in writing.state]
    forgotten = sorted(set(read.state) - set(report.mapped) - set(report.dropped))
    assert not forgotten, forgotten
    meta = {
        'source': read.name,
        'sha256': read.sha256,
        'from': source.name,
        'to': target.name,
        'grid': f'{new[0]}x{new[1]}',
        'mmmlo': __version__,
    }
    return Conversion(source, target, given, reading.state, ours, writing.state, shape, old, new, report, meta)


def _by_reason(what: str, keys: dict[str, str]) -> list[str]:
    grouped = defaultdict(list)
    for key, reason in keys.items():
        grouped[reason].append(key)
    return [f'  {what}: {len(names)}, {reason}: {format_list(names)}' for reason, names in grouped.items()]
