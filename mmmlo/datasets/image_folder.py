"""Folders of images with a folder for each class, of which all that can be decoded is read, and lists of images."""

import logging
import os.path as osp
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from mmengine.fileio import get_file_backend
from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset

from mmmlo.datasets.labels import read_annotations, read_text
from mmmlo.registry import DATASETS
from mmmlo.utils.errors import DataError
from mmmlo.utils.text import format_list

__all__ = ['EXTENSIONS', 'ImageFolder', 'count_files', 'find_images', 'is_hidden']

# What OpenCV's wheels decode.
EXTENSIONS = (
    '.jpg', '.jpeg', '.jpe', '.jfif', '.jp2', '.png', '.bmp', '.ppm', '.pgm', '.pbm', '.pnm', '.tif', '.tiff', '.webp',
    '.gif', '.avif'
)
# Images too, which OpenCV does not decode, or not as photographs.
_UNREADABLE = (
    '.heic', '.heif', '.jxl', '.tga', '.dds', '.ico', '.psd', '.svg', '.dng', '.cr2', '.nef', '.arw', '.npy', '.npz', '.dcm',
    '.nii', '.exr', '.hdr', '.mat'
)


def is_hidden(path: str) -> bool:
    """Tell whether a file or a folder above it is hidden or macOS's own, as ``__MACOSX`` and ``._x.png`` are."""
    return any(part.startswith('.') or part == '__MACOSX' for part in path.split('/'))


def find_images(
    root: str, with_label: bool = True, extensions: Sequence[str] = EXTENSIONS
) -> tuple[dict[str, list[str]], Counter[str]]:
    """List the images, with endings in lower case, of the folders of classes, and count the files that are none of them.

    Returns:
        tuple[dict[str, list[str]], Counter[str]]: Class -> its images in all folders within, as sorted paths below
        ``root``; without labels '' -> all images. Ending or place of those left out -> how many.
    """
    backend = get_file_backend(root, enable_singleton=True)
    folders = backend.list_dir_or_file(root, list_file=False) if with_label else ['']
    images: dict[str, list[str]] = {name: [] for name in sorted(folders) if not is_hidden(name)}
    left: Counter[str] = Counter()
    for path in sorted(backend.list_dir_or_file(root, list_dir=False, recursive=True)):
        ending = osp.splitext(path)[1].lower()
        if is_hidden(path):
            left['hidden'] += 1
        elif not path.lower().endswith(tuple(extensions)):
            left[ending or 'without an ending'] += 1
        elif with_label and '/' not in path:
            left[f'{ending} outside of the folders of classes'] += 1
        else:
            images[path.split('/')[0] if with_label else ''].append(path)
    return images, left


def count_files(images: dict[str, list[str]], left: Counter[str]) -> str:
    """Say how many files :func:`find_images` found, and of which kinds are those that are left out."""
    read = sum(map(len, images.values()))
    if not left:
        return f'all {read:,} files are read'
    others = ', '.join(f'{count:,} {kind}' for kind, count in sorted(left.items(), key=lambda item: (-item[1], item[0])))
    return f'{read:,} of {read + left.total():,} files are read; {others} are not'


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """mmpretrain's ``CustomDataset``, which reads all that OpenCV decodes, skips what is hidden and says what it leaves out.

    The names of the folders are the classes. The log counts the files, and warns of images that are not read and of classes
    without images. With an ``ann_file`` the images are those that it lists, see :func:`read_annotations`. Where some have
    several labels, a sample's ``gt_label`` is a list, and its ``gt_score`` 1 for each of them and 0 for the other classes.

    Args:
        *args: Arguments of :class:`mmpretrain.datasets.CustomDataset`.
        extensions (Sequence[str]): Endings of the files to read, '.npy' too. Defaults to ``EXTENSIONS``.
        first_label (int): The number of the first class in ``ann_file``. Defaults to 0.
        classes (str | Sequence[str], optional): The names of the classes, or a file with a line for each. Defaults to None.
        **kwargs: Other arguments of mmpretrain's class.
    """

    def __init__(
        self, *args: Any, extensions: Sequence[str] = EXTENSIONS, first_label: int = 0,
        classes: str | Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        self.first_label = first_label
        if isinstance(classes, str):
            classes = [name.strip() for name in read_text(osp.expanduser(classes)) if name.strip()]
        super().__init__(*args, extensions=extensions, classes=classes, **kwargs)

    def _find_samples(self) -> list:
        """List paths below the folder, each with its class if there are any."""
        root = self.img_prefix.rstrip('/')
        images, left = find_images(root, self.with_label, self.extensions)
        counts = count_files(images, left)
        if not any(images.values()):
            loose = any('outside of' in kind for kind in left)
            hint = f' Put them into {root}/<class>/, or set `with_label=False` where no labels are needed.' if loose else ''
            endings = ', '.join(sorted(self.extensions))
            raise DataError(f'{root} holds no image to read: {counts}.{hint} Endings read: {endings}.')
        unread = [kind for kind in left if kind.startswith((*EXTENSIONS, *_UNREADABLE))]
        empty = [name for name in images if not images[name]]
        counts += f'. There is no image for {format_list(empty)}' if empty else ''
        _log_once(f'{root}: {counts}', logging.WARNING if unread or empty else logging.INFO)
        if not self.with_label:
            return images['']
        if self.CLASSES is None:
            self._metainfo['classes'] = tuple(images)
        elif len(self.CLASSES) != len(images):
            raise DataError(
                f'{root} holds {len(images)} folders of classes, {format_list(list(images))}, and `classes` names '
                f'{len(self.CLASSES)}. Both must be the same.'
            )
        self.folder_to_idx = {name: index for index, name in enumerate(images)}
        return [(path, index) for index, paths in enumerate(images.values()) for path in paths]

    def load_data_list(self) -> list[dict]:
        """Read the folder, or ``ann_file`` in any form."""
        if not self.ann_file:
            return super().load_data_list()
        names, labels, classes = read_annotations(self.ann_file, self.CLASSES, self.with_label, self.first_label)
        if classes is not None and self.CLASSES is None:
            self._metainfo['classes'] = tuple(classes)
        join = get_file_backend(self.img_prefix, enable_singleton=True).join_path
        first = join(self.img_prefix, names[0])
        if '://' not in first and not osp.exists(first):
            ending = next((ending for ending in EXTENSIONS if osp.exists(first + ending)), None)
            if ending is None:
                below = f'Write paths below `data_root` and `data_prefix`, which are {self.img_prefix or "empty"}.'
                raise DataError(f'{self.ann_file}: {names[0]!r}, its first image: there is no file {first}. {below}')
            names = [name + ending for name in names]
        samples: list[dict] = [dict(img_path=join(self.img_prefix, name)) for name in names]
        several = any(len(own) != 1 for own in labels)
        count = len(classes) if classes else max(map(max, filter(None, labels)), default=-1) + 1
        for sample, own in zip(samples, labels):
            sample['gt_label'] = own if several else own[0]
            if several:
                sample['gt_score'] = np.isin(np.arange(count), own).astype(np.float32)
        return samples


@cache
def _log_once(text: str, level: int) -> None:
    """Log what the datasets of several levels would each say of their common folder."""
    print_log(text, 'current', level)
