"""Writing a file as a whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ['flush', 'replace_whole', 'write_whole']


@contextmanager
def replace_whole(path: str) -> Iterator[str]:
    """Give the name of a file to write beside ``path``, then flush it and rename it: a reader never finds a part of it.

    A file that is there is replaced, or left as it is if something goes wrong.
    """
    temporary = f'{path}.{os.getpid()}.tmp'
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def write_whole(path: str, text: str) -> None:
    """Write a text in UTF-8, as a whole or not at all."""
    with replace_whole(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        file.write(text)


def flush(path: str) -> None:
    """Have the system write a file, or the names of a folder's files, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
