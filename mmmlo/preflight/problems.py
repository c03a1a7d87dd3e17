"""What a check finds, and what the checks of data read from disk."""

import logging
import os
import os.path as osp
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from mmengine.logging import print_log
from PIL import Image

from mmmlo.datasets import count_files, find_images
from mmmlo.utils.errors import DataError, MmmloError
from mmmlo.utils.text import format_list

__all__ = [
    'Problem', 'check_heads', 'exif_hint', 'find_heads', 'find_missing', 'find_unread', 'first_of', 'refuse',
    'sample_indices'
]

_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a config or its data, and what would be right.

    Attributes:
        key (str): Where, as it is written in ``--cfg-options``; empty where the text says it.
        warning (bool): Whether the run may be meant as it is, as one that is cut short for a test. Defaults to False.
    """

    key: str
    text: str
    warning: bool = False

    def __str__(self) -> str:
        return f'{self.key}: {self.text}' if self.key else self.text


def refuse(problems: Iterable[Problem], error: type[MmmloError] = DataError, advice: str = '') -> None:
    """Log what is a warning, and raise an error with a line for each of the others, and the advice."""
    lines = []
    for problem in problems:
        if problem.warning:
            print_log(str(problem), 'current', logging.WARNING)
        else:
            lines.append(str(problem))
    if lines:
        head = f'{len(lines)} problems:\n  ' if len(lines) > 1 else ''
        raise error(head + '\n  '.join(lines) + advice)


def sample_indices(length: int, count: int) -> list[int]:
    """Draw so many of the indices of a data set, the same ones each time, in order."""
    if length <= count:
        return list(range(length))
    return sorted(np.random.default_rng(0).choice(length, count, replace=False).tolist())


def find_heads(model: Mapping, names: Iterable[str], key: str = 'model') -> Iterator[tuple[str, Mapping]]:
    """Find keys and configs of heads, and of those within; some models have several of a kind."""
    for name in names:
        found = model.get(name) or []
        single = isinstance(found, Mapping)
        for i, head in enumerate([found] if single else found):
            where = f'{key}.{name}' if single else f'{key}.{name}.{i}'
            yield where, head
            yield from find_heads(head, names, where)


def check_heads(heads: Iterable[tuple[str, Mapping]], classes: Sequence[str], owner: str) -> Iterator[Problem]:
    """Compare the outputs of heads with the classes of a data set."""
    for where, head in heads:
        if head.get('num_classes') not in (None, len(classes)):
            text = f'{head["num_classes"]}, but {owner} has {len(classes)} classes: {format_list(classes)}'
            yield Problem(f'{where}.num_classes', text)


def first_of(texts: list[str], looked_at: int) -> str:
    """Give the first of the texts of a kind and how many more there are."""
    return texts[0] + (f' (and {len(texts) - 1} more of {looked_at})' if len(texts) > 1 else '')


def find_missing(paths: Iterable[str]) -> list[str]:
    """Find the files that are not there, by listing folders: on a network disk single files are slow to ask for."""
    there: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = osp.split(path)
        if folder not in there:
            there[folder] = set(os.listdir(folder)) if osp.isdir(folder) else set()
        if name not in there[folder]:
            missing.append(path)
    return missing


def find_unread(folder: str, read: Collection[str], others: Collection[str] = ()) -> tuple[list[str], str]:
    """Find the images of a folder that are neither among those that are read nor among others, such as label maps.

    Returns:
        tuple[list[str], str]: Their paths; how many files are read, and the endings of all that are not.
    """
    if not osp.isdir(folder):
        return [], f'{len(read):,} images'
    images, left = find_images(folder, with_label=False)
    known = {osp.normpath(path) for path in (*read, *others)}
    unread = [path for name in images[''] if osp.normpath(path := osp.join(folder, name)) not in known]
    left += Counter(osp.splitext(path)[1] for path in unread)
    return unread, count_files({'': list(read)}, left)


def exif_hint(path: str) -> str:
    """Say what to do about a photograph that loaders turn or mirror by its EXIF tag; '' if it has none."""
    try:
        with Image.open(path) as image:
            if image.getexif().get(_ORIENTATION, 1) == 1:
                return ''
    except Exception:  # a remote file, or one that only other decoders know
        return ''
    keep = "color_type='color_ignore_orientation' to LoadImageFromFile"
    return f'; its EXIF tag turns it, and not what was drawn on it. Turn the file itself, or add {keep}'
