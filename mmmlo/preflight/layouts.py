"""Folders of well-known data sets: what must be in them, and whether it is."""

import os
import os.path as osp
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from mmcv import imread

from mmmlo.datasets import EXTENSIONS, count_files, find_images, is_hidden
from mmmlo.utils.errors import DataError, SettingError
from mmmlo.utils.text import describe_error, format_list

from .files import find_missing, read_coco

__all__ = ['LAYOUTS', 'LayoutReport', 'check_layout', 'split_files']


@dataclass
class LayoutReport:
    """What was found in the folder of a data set.

    Attributes:
        facts (list[str]): What is there: counts, and the sample that was opened.
        incomplete (list[str]): Where there are fewer images than in the official release.
        problems (list[str]): What is missing or broken, and what would be right.
    """

    facts: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def count(self, what: str, found: int, official: int) -> None:
        """Note a count, and whether the official release has more."""
        self.facts.append(f'{what}: {found:,}')
        if found < official:
            self.incomplete.append(f'{what}: {found:,}, and the official release has {official:,}')

    def require(self, *paths: str, kind: str = 'folder') -> bool:
        """Note folders, or files, that are not there; whether all are."""
        exists = osp.isdir if kind == 'folder' else osp.isfile
        absent = [path for path in paths if not exists(path)]
        self.problems += [f'there is no {kind} {path}' for path in absent]
        return not absent

    def open(self, path: str, flag: str = 'color') -> np.ndarray | None:
        """Decode an image, H x W x 3 or H x W, or note why that cannot be done."""
        if not self.require(path, kind='file'):
            return None
        try:
            image = imread(path, flag=flag)
        except Exception as error:  # a decoder raises anything
            self.problems.append(f'{path} cannot be opened ({describe_error(error)})')
            return None
        if image is None:
            self.problems.append(f'{path} is no image, or not a whole one')
        return image


def check_layout(name: str, root: str) -> LayoutReport:
    """Look whether a folder holds a data set as the configs expect it.

    Every file that is named must be there; one sample of each split is opened.

    Args:
        name (str): A key of ``LAYOUTS``.
        root (str): The folder.

    Returns:
        LayoutReport: What was found.

    Raises:
        SettingError: There is no such name.
    """
    if name not in LAYOUTS:
        raise SettingError(f'there is no check for {name!r}; there are {", ".join(LAYOUTS)}')
    report = LayoutReport()
    if not osp.isdir(root):
        report.problems.append(f'there is no folder {root} (that is, {osp.abspath(root)})')
    else:
        LAYOUTS[name](root, report)
    return report


def _ade_root(root: str) -> str:
    """The folder to which the archive unpacks, and which the configs name."""
    inner = osp.join(root, 'ADEChallengeData2016')
    return inner if osp.isdir(inner) else root


def _ade20k(root: str, report: LayoutReport) -> None:
    for split, official in (('training', 20210), ('validation', 2000)):
        _segmentation_split(_ade_root(root), split, official, 150, report)


def _camvid(root: str, report: LayoutReport) -> None:
    for split in ('train', 'val'):
        _segmentation_split(root, split, 0, 11, report)


def _segmentation_split(root: str, split: str, official: int, largest: int, report: LayoutReport) -> None:
    images, labels = (osp.join(root, kind, split) for kind in ('images', 'annotations'))
    if not report.require(images, labels):
        return
    stems = {osp.splitext(name)[0]: name for name in _files(images)}
    report.count(f'{split} images', len(stems), official)
    unlabelled = sorted(set(stems) - {osp.splitext(name)[0] for name in _files(labels)})
    if unlabelled:
        names = format_list(unlabelled, 3)
        report.problems.append(f'{len(unlabelled)} images of {images} have no label in {labels}: {names}')
    stem = min(set(stems) - set(unlabelled), default=None)
    if stem is None:
        report.problems.append(f'{images} holds no image with a label in {labels}')
        return
    path = osp.join(labels, f'{stem}.png')
    image, label = report.open(osp.join(images, stems[stem])), report.open(path, flag='unchanged')
    if image is None or label is None:
        return
    if label.ndim != 2:
        wrong = f'has {label.shape[-1]} channels; a label map has one, the number of the class'
    elif label.shape != image.shape[:2]:
        wrong = f'has {_size(label)} pixels, and its image {_size(image)}'
    elif label.max() > largest and label.max() != 255:
        wrong = f'holds the value {label.max()}; labels go up to {largest}'
    else:
        values = np.unique(label)
        text = f'{len(values)} label values from {values[0]} to {values[-1]}'
        report.facts.append(f'{split} sample {stem}: {image.shape[1]} x {image.shape[0]} pixels, {text}')
        return
    report.problems.append(f'{path} {wrong}')


def _coco(root: str, report: LayoutReport) -> None:
    for split, official in (('train2017', 118287), ('val2017', 5000)):
        folder, annotations = osp.join(root, split), osp.join(root, 'annotations', f'instances_{split}.json')
        if not (report.require(folder) and report.require(annotations, kind='file')):
            continue
        try:
            images, boxes, categories = read_coco(annotations)
        except DataError as error:
            report.problems.append(str(error))
            continue
        report.count(f'{split} images', len(images), official)
        report.facts.append(f'{split} instances: {len(boxes):,} of {len(categories)} categories')
        if len(categories) != 80:
            report.problems.append(f'{annotations} has {len(categories)} categories; COCO has 80')
        if not boxes:
            report.problems.append(f'{annotations} has no instances')
        absent = _check_listed(annotations, folder, images, report)
        for name in sorted(set(images) - absent)[:1]:
            image, (_, stated) = report.open(osp.join(folder, name)), images[name]
            if image is not None and image.shape[:2] != stated:
                report.problems.append(
                    f'{folder}/{name} has {_size(image)} pixels, and {annotations} says {stated[0]} x {stated[1]}'
                )
            elif image is not None:
                report.facts.append(f'{split} sample {name}: {image.shape[1]} x {image.shape[0]} pixels')


def _check_listed(listing: str, folder: str, names: Sequence[str] | dict, report: LayoutReport) -> set[str]:
    """Look for the images that a file names; those that are not there."""
    absent = sorted(osp.relpath(path, folder) for path in find_missing(osp.join(folder, name) for name in names))
    if absent:
        report.problems.append(f'{len(absent)} images of {listing} are not in {folder}: {format_list(absent, 3)}')
    return set(absent)


def _imagenet(root: str, report: LayoutReport) -> None:
    train, val, listing = osp.join(root, 'train'), osp.join(root, 'val'), osp.join(root, 'meta', 'val.txt')
    classes = _check_classes(train, 'train', 1281167, 1000, report)
    if osp.isdir(val) and osp.isfile(listing):
        with open(listing, encoding='utf-8') as file:
            names = [line.split()[0] for line in file if line.strip()]
        report.count('val images', len(names), 50000)
        _check_listed(listing, val, names, report)
        return
    otherwise = f'; or write {listing}, with a line "file class" for each image'
    folders = _check_classes(val, 'val', 50000, 1000, report, otherwise)
    odd = sorted(set(classes) ^ set(folders))
    if classes and folders and odd:
        report.problems.append(f'only one of {train} and {val} has {format_list(odd)}')


def _check_classes(
    folder: str, split: str, images: int, classes: int, report: LayoutReport, otherwise: str = ''
) -> dict[str, list[str]]:
    """Look at the folders of classes of a split, of which the official release has so many; class -> its images."""
    if not report.require(folder):
        return {}
    files, left = find_images(folder)
    if not files:
        report.problems.append(f'{folder} has no folder for each class, such as {folder}/n01440764{otherwise}')
        return {}
    report.count(f'{split} classes', len(files), classes)
    report.count(f'{split} images', sum(map(len, files.values())), images)
    if left:
        report.facts.append(f'{split}: {count_files(files, left)}')
    empty = [name for name in files if not files[name]]
    if empty:
        report.problems.append(f'{len(empty)} class folders of {folder} hold no image: {format_list(empty)}')
    for sample in [paths[0] for paths in files.values() if paths][:1]:
        image = report.open(osp.join(folder, sample))
        if image is not None:
            report.facts.append(f'{split} sample {sample}: {image.shape[1]} x {image.shape[0]} pixels')
    return files


def _folder(root: str, report: LayoutReport) -> None:
    train, test = (_check_classes(osp.join(root, split), split, 0, 0, report) for split in ('train', 'test'))
    odd = sorted(set(train) ^ set(test))
    if train and test and odd:
        names = format_list(odd)
        report.problems.append(f'only one of {root}/train and {root}/test has {names}; both need the same classes')
    few = [name for name, files in train.items() if len(files) == 1]
    if few:
        need = 'D_tr and D_val need one each'
        report.problems.append(f'{len(few)} classes of {root}/train hold one image: {format_list(few)}; {need}')


def _cifar10(root: str, report: LayoutReport) -> None:
    from mmpretrain.datasets import CIFAR10
    from mmpretrain.datasets.utils import check_md5

    folder = osp.join(root, CIFAR10.base_folder)
    if not osp.isdir(folder):
        report.problems.append(
            f'there is no folder {folder}; training downloads {CIFAR10.filename} into {root}, or unpack that archive there'
        )
        return
    files = [*CIFAR10.train_list, *CIFAR10.test_list, [CIFAR10.meta['filename'], CIFAR10.meta['md5']]]
    for name, md5 in files:
        path = osp.join(folder, name)
        if report.require(path, kind='file') and not check_md5(path, md5):
            report.problems.append(f'{path} is damaged: its MD5 sum is not {md5}. Unpack or download it again')
    if report.problems:
        return
    for split, official in (('train', 50000), ('test', 10000)):
        dataset = CIFAR10(data_root=root, split=split, download=False)
        report.count(f'{split} images', len(dataset), official)
        sample = dataset[0]
        name = dataset.metainfo['classes'][int(sample['gt_label'])]
        report.facts.append(f'{split} sample 0: {" x ".join(map(str, sample["img"].shape))}, {name}')


LAYOUTS: dict[str, Callable[[str, LayoutReport], None]] = dict(
    ade20k=_ade20k, coco=_coco, imagenet=_imagenet, cifar10=_cifar10, camvid=_camvid, folder=_folder
)

# Folders of the images of each split, the one to train on first.
_SPLITS = dict(
    ade20k=('images/training', 'images/validation'),
    coco=('train2017', 'val2017'),
    imagenet=('train', 'val'),
    camvid=('images/train', 'images/val'),
    folder=('train', 'test'),
)


def split_files(name: str, root: str) -> dict[str, list[str]]:
    """List the image files of each split of a data set that consists of files.

    Args:
        name (str): A key of ``LAYOUTS`` other than 'cifar10'.
        root (str): The folder.

    Returns:
        dict[str, list[str]]: The split's folder, below the root -> its images, as paths; the split to train on comes first.
    """
    root = _ade_root(root) if name == 'ade20k' else root
    return {
        split: sorted(
            osp.join(parent, file)
            for parent, _, files in os.walk(osp.join(root, split), followlinks=True)
            for file in files
            if _is_image(osp.relpath(osp.join(parent, file), root))
        )
        for split in _SPLITS[name]
    }


def _files(folder: str) -> list[str]:
    """Names of a folder's images."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if _is_image(entry.name))


def _is_image(path: str) -> bool:
    return path.lower().endswith(EXTENSIONS) and not is_hidden(path)


def _size(image: np.ndarray) -> str:
    return f'{image.shape[0]} x {image.shape[1]}'
