"""What became of every key of a conversion."""

from collections import defaultdict
from dataclasses import dataclass, field

from mmmlo.utils.text import format_list

__all__ = ['ConversionReport']

Grid = tuple[int, int]


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
        """One line with the counts, and the details below it."""
        counts = [f'{len(self.mapped)} mapped', f'{len(self.dropped)} dropped']
        counts += [f'{len(keys)} {word}' for word, keys in (('resized', self.resized), ('added', self.added)) if keys]
        how = ', recognized by its keys' if self.detected else ''
        lines = [f'Key report of {self.source} ({self.source_format}{how}) to {self.target_format}: {", ".join(counts)}']
        for reason, keys in _by_reason(self.dropped).items():
            lines.append(f'  dropped: {len(keys)}, {reason}: {format_list(keys)}')
        for key, (old, new, function) in self.resized.items():
            lines.append(f'  resized: {key} from {old[0]} x {old[1]} to {new[0]} x {new[1]} patches by {function}')
        for reason, keys in _by_reason(self.added).items():
            lines.append(f'  added: {len(keys)}, {reason}: {format_list(keys)}')
        return '\n'.join([*lines, *(f'  note: {note}' for note in self.notes)])


def _by_reason(keys: dict[str, str]) -> dict[str, list[str]]:
    grouped = defaultdict(list)
    for key, reason in keys.items():
        grouped[reason].append(key)
    return grouped
