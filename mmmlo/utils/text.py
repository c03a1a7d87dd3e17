"""Words for messages, tables and pictures."""

import os.path as osp
from collections.abc import Sequence

__all__ = ['default_labels', 'describe_error', 'format_list']


def describe_error(error: BaseException) -> str:
    """Give the type of an error and the first sentence of its message."""
    first = (str(error).strip() or 'no message').splitlines()[0]
    return f'{type(error).__name__}: {first.split(". ")[0]}'


def format_list(names: Sequence[str], most: int = 4) -> str:
    """Give the first names of a list and how many more there are."""
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')


def default_labels(paths: Sequence[str]) -> list[str]:
    """Name checkpoints in tables and pictures: the paths below the folder that they share, without the ending."""
    absolute = [osp.splitext(osp.abspath(path))[0] for path in paths]
    common = osp.commonpath([osp.dirname(path) for path in absolute])
    return [osp.relpath(path, common) for path in absolute]
