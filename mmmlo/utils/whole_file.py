"""Writing a file as a whole or not at all."""

import os

__all__ = ['flush', 'write_whole']


def write_whole(path: str, text: str) -> None:
    """Write a text beside its place, flush it to the disk, and rename it, so that a reader never finds a part of it.

    Args:
        path (str): The file. One that is there is replaced, or left as it is if something goes wrong.
        text (str): Its content, written in UTF-8.

    Raises:
        OSError: It cannot be written.
    """
    # In the same folder, so in the same file system; opened as usual, so with the usual permissions.
    temporary = f'{path}.{os.getpid()}.tmp'
    try:
        with open(temporary, 'w', encoding='utf-8') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


def flush(path: str) -> None:
    """Have the system write a file, or the names of a folder's files, to the disk.

    Args:
        path (str): The file or folder.

    Raises:
        OSError: It cannot be written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
