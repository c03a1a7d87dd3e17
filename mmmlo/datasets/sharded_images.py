"""Images in tar files, as WebDataset has them, on a disk or behind a URL."""

import json
import os
import re
import tarfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import fsspec
from mmengine.fileio import BaseStorageBackend, register_backend
from mmengine.logging import print_log
from mmpretrain.datasets import BaseDataset

from mmmlo.datasets.image_folder import EXTENSIONS
from mmmlo.registry import DATASETS
from mmmlo.utils.errors import DataError, MissingFileError
from mmmlo.utils.text import describe_error

__all__ = ['ShardBackend', 'ShardedImages', 'index_shard']

_TRIES = 4
_WAIT = 1.0  # seconds before the second try; it doubles


@cache
def _file_system(url: str, process: int) -> tuple[Any, str]:
    """The file system of a URL and the path in it; each process has its own, for what keeps connections."""
    return fsspec.core.url_to_fs(url, skip_instance_cache=True)


def _read(url: str, start: int, end: int) -> bytes:
    """Read bytes of a shard, trying again where the other side does not answer.

    Raises:
        DataError: It never did, or the shard is shorter.
    """
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_WAIT * 2 ** (attempt - 1))
        try:
            system, path = _file_system(url, os.getpid())
            content = system.cat_file(path, start=start, end=end)
            break
        except FileNotFoundError as error:
            raise DataError(f'the shard {url} is gone') from error
        except Exception as error:  # each file system has its own
            last = error
    else:
        raise DataError(
            f'the shard {url} could not be read in {_TRIES} tries ({describe_error(last)}); once it answers, --resume goes '
            'on from the last checkpoint'
        ) from last
    if len(content) != end - start:
        raise DataError(f'the shard {url} is cut off: it has no bytes {start + len(content)} to {end} any more')
    return content


@register_backend('shard', prefixes='shard', force=True)
class ShardBackend(BaseStorageBackend):
    """Reads members of tar files by their place: ``shard://START-END@URL!NAME``, as :class:`ShardedImages` calls them."""

    def get(self, filepath: str) -> bytes:
        """Read a member, and look into its header whether it is the one."""
        start, end, url, name = re.fullmatch(r'shard://(\d+)-(\d+)@(.*)!([^!]*)', filepath).groups()  # type: ignore[union-attr]
        url = url.replace('%3A//', '://')
        content = _read(url, int(start) - tarfile.BLOCKSIZE, int(end))
        header = content[:100].rstrip(b'\0')
        if len(header) < 100 and not header.endswith(name.encode()):  # longer names stand elsewhere
            raise DataError(f'the shard {url} has no {name} where its index says; remove {url}.index.json')
        return content[tarfile.BLOCKSIZE:]

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        """Read a member as text."""
        return self.get(filepath).decode(encoding)


def index_shard(url: str) -> dict[str, Any]:
    """Find the samples of a shard: its members of one name up to the first dot, an image and perhaps a ``.cls``.

    Returns:
        dict[str, Any]: ``size`` of the shard in bytes and ``samples``: key, ending, first byte, end, label or None.

    Raises:
        MissingFileError: There is no such shard.
        DataError: It is torn, or a key occurs twice.
    """
    system, path = fsspec.core.url_to_fs(url)
    if not system.exists(path):
        raise MissingFileError(f'there is no shard {url}')
    size, images, labels = system.size(path), {}, {}
    try:
        with system.open(path, 'rb') as file, tarfile.open(fileobj=file, mode='r:') as archive:
            for member in archive:
                folder, _, name = member.name.rpartition('/')
                stem, _, ending = name.partition('.')
                key, extension = (f'{folder}/{stem}' if folder else stem), f'.{ending.lower()}'
                if member.isfile() and extension == '.cls':
                    labels[key] = int(archive.extractfile(member).read())  # type: ignore[union-attr]
                elif member.isfile() and extension in EXTENSIONS:
                    if key in images:
                        raise DataError(f'the shard {url} has two images of the key {key!r}')
                    images[key] = f'.{ending}', member.offset_data, member.offset_data + member.size
            end = archive.offset  # of what was read, the two blocks of zeros at the end included
    except (tarfile.ReadError, EOFError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f'the shard {url} is torn or no tar file ({describe_error(error)}); copy it anew') from error
    if end > size or any(stop > size for _, _, stop in images.values()):
        raise DataError(f'the shard {url} is cut off: it has {size} bytes; copy it anew')
    return dict(size=size, samples=[[key, *image, labels.get(key)] for key, image in images.items()])


def _kept_index(url: str) -> dict[str, Any]:
    """The index beside a shard, ``<shard>.index.json``; a new one where it is not there or of another size."""
    beside = f'{url}.index.json'
    system, path = fsspec.core.url_to_fs(beside)
    shard = fsspec.core.url_to_fs(url)[1]
    if system.exists(shard) and system.exists(path):
        index = json.loads(system.cat_file(path))
        if index['size'] == system.size(shard):
            return index
    index = index_shard(url)
    print_log(f'{url}: {len(index["samples"])} images', 'current')
    try:
        system.pipe_file(path, json.dumps(index).encode())
    except Exception as error:  # a place that may only be read: it is looked through in each run
        print_log(f'{beside} cannot be written ({describe_error(error)}), so each start takes this long', 'current')
    return index


def expand_shards(shards: str | Sequence[str]) -> list[str]:
    """List the shards of a pattern as ``train-{0000..0146}.tar``, or of several."""
    found: list[str] = []
    for pattern in [shards] if isinstance(shards, str) else shards:
        match = re.search(r'\{(\d+)\.\.(\d+)\}', pattern)
        if match is None:
            found.append(pattern)
            continue
        first, last = match.groups()
        numbers: Iterator[str] = (f'{number:0{len(first)}}' for number in range(int(first), int(last) + 1))
        found += [pattern.replace(match[0], number) for number in numbers]
    return found


@DATASETS.register_module()
class ShardedImages(BaseDataset):
    """Images in the tar files of WebDataset, as one data set that is shuffled, split and resumed as any other.

    Shards lie on a disk or behind any URL that fsspec reads. Each is looked through once, and what was found is kept beside
    it as ``<shard>.index.json``. Samples are sorted by their keys, so an order of shards or of members changes nothing, and
    an image is told apart by its key: :class:`SplitDataset` cuts by it, and the guard of splits compares it. Reads are by
    place, so a process needs no shard of its own.

    Args:
        shards (str | Sequence[str]): ``train-{0000..0146}.tar``, or a list.
        with_label (bool): Whether each image has a ``.cls``, the number of its class. Defaults to True.
        classes (Sequence[str], optional): Their names. Defaults to None.
        pipeline (Sequence): As in mmpretrain, with :class:`LoadImage` first.
        **kwargs: Other arguments of mmpretrain's ``BaseDataset``.

    Raises:
        MissingFileError: A shard is not there.
        DataError: A shard is torn, a key occurs twice, or an image has no label.
    """

    def __init__(
        self, shards: str | Sequence[str], with_label: bool = True, classes: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        self.shards, self.with_label = expand_shards(shards), with_label
        super().__init__(ann_file='', classes=classes, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the indices."""
        found: dict[str, dict] = {}
        for shard in self.shards:
            for key, ending, start, end, label in _kept_index(shard)['samples']:
                name = key.rpartition('/')[2] + ending
                path = f'shard://{start}-{end}@{shard.replace("://", "%3A//")}!{name}'
                if key in found:
                    other = found[key]['img_path'].partition('@')[2].rpartition('!')[0]
                    raise DataError(f'the key {key!r} is in two shards, {other} and {shard}')
                found[key] = dict(img_path=path, source=key)
                if self.with_label:
                    if label is None:
                        raise DataError(
                            f'{key!r} of the shard {shard} has no {key}.cls with the number of its class; set '
                            '`with_label=False` where no labels are needed'
                        )
                    found[key]['gt_label'] = label
        return [found[key] for key in sorted(found)]

