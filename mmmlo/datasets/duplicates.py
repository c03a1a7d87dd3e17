"""Find images that two splits share by their content."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable

__all__ = ['shared_files']


def shared_files(first: Iterable[str], second: Iterable[str]) -> list[tuple[str, str]]:
    """Find the files of one split whose bytes are also those of a file of another; only those of equal sizes are read.

    Returns:
        list[tuple[str, str]]: For each path of the second that has a copy in the first, one such copy, and the path.
    """
    by_size: tuple[dict[int, list[str]], ...] = (defaultdict(list), defaultdict(list))
    for paths, sizes in zip((first, second), by_size):
        for path in paths:
            sizes[os.path.getsize(path)].append(path)
    pairs = []
    for size in by_size[0].keys() & by_size[1].keys():
        known = {_hash_file(path): path for path in reversed(by_size[0][size])}
        pairs += [(known[digest], path) for path in by_size[1][size] if (digest := _hash_file(path)) in known]
    return sorted(pairs, key=lambda pair: pair[1])


def _hash_file(path: str) -> bytes:
    with open(path, 'rb') as file:
        return hashlib.blake2b(file.read(), digest_size=16).digest()
