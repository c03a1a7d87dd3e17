"""Find images that two splits share by their content, and images that cannot be decoded."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
from mmcv import imread

__all__ = ['broken_images', 'shared_arrays', 'shared_files']


def shared_files(first: Iterable[str], second: Iterable[str]) -> list[tuple[str, str]]:
    """Find the files of one split whose bytes are also those of a file of another.

    Only files of a size that occurs in both are read. Copies that were scaled or saved anew are not found.

    Args:
        first (Iterable[str]): Paths, as of the split to train on.
        second (Iterable[str]): Paths, as of the test split.

    Returns:
        list[tuple[str, str]]: For each file of the second that has a copy in the first, one such copy, and the file.
    """
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in first:
        by_size[os.path.getsize(path)].append(path)
    candidates: dict[int, list[str]] = defaultdict(list)
    for path in second:
        size = os.path.getsize(path)
        if size in by_size:
            candidates[size].append(path)
    pairs = []
    for size, paths in candidates.items():
        known = {_hash_file(path): path for path in reversed(by_size[size])}
        pairs += [(known[digest], path) for path in paths if (digest := _hash_file(path)) in known]
    return sorted(pairs, key=lambda pair: pair[1])


def shared_arrays(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Find the images in memory, H x W x 3, whose pixels are shared: pairs of indices, as of :func:`shared_files`."""
    known = {_hash(image.tobytes()): i for i, image in reversed(list(enumerate(first)))}
    return [(known[digest], i) for i, image in enumerate(second) if (digest := _hash(image.tobytes())) in known]


def broken_images(splits: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """Decode every image of the splits' paths, and yield the paths of those that cannot be decoded."""
    for path in chain.from_iterable(splits.values()):
        try:
            whole = imread(path) is not None
        except Exception:  # a decoder raises anything
            whole = False
        if not whole:
            yield path


def _hash_file(path: str) -> bytes:
    with open(path, 'rb') as file:
        return _hash(file.read())


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
