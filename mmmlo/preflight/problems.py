"""What a check finds, and what the checks of data read from disk."""

import logging
import os
import os.path as osp
import re
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
    'Problem', 'check_heads', 'draw', 'find_heads', 'find_missing', 'find_unread', 'first_of', 'loading_steps', 'read_exif',
    'refuse'
]


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
    found = list(problems)
    for problem in (problem for problem in found if problem.warning):
        print_log(str(problem), 'current', logging.WARNING)
    lines = [str(problem) for problem in found if not problem.warning]
    if lines:
        head = f'{len(lines)} problems:\n  ' if len(lines) > 1 else ''
        raise error(head + '\n  '.join(lines) + advice)


def draw(items: Sequence, count: int) -> list:
    """Draw so many of the items, the same ones each time, in their order."""
    chosen = np.random.default_rng(0).permutation(len(items))[:count]
    return [items[i] for i in sorted(chosen.tolist())]


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


def loading_steps(pipeline: Iterable[Mapping] | None) -> list[Mapping]:
    """Find the transforms of a pipeline that load images and annotations."""
    return [step for step in pipeline or () if re.search('Load.*(Image|Annotation)', str(step['type']))]


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


def read_exif(path: str, ignored: bool = False) -> tuple[int, str]:
    """Read the EXIF tag by which a photograph is turned, 1 if it is not, from 5 on to the side, and what to do about it."""
    option = "color_type='color_ignore_orientation' of LoadImageFromFile"
    try:
        with Image.open(path) as image:
            turn = image.getexif().get(0x0112, 1)
    except Exception:  # a remote file, or one that only other decoders know
        turn = 1
    if turn == 1:
        return turn, ''
    if ignored:
        return turn, f'; {option} ignores its EXIF tag: leave that out if it was drawn on the turned image'
    return turn, f'; its EXIF tag turns it, and not what was drawn on it: turn the file itself, or set {option}'
