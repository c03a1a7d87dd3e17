"""Folders of well-known data sets: what must be in them, and whether it is."""

import json
import os
import os.path as osp
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from mmcv import imread

from mmmlo.utils.errors import SettingError
from mmmlo.utils.text import describe_error, format_list

__all__ = ['LAYOUTS', 'LayoutReport', 'check_layout', 'split_files']

_IMAGES = ('.jpg', '.jpeg', '.png', '.bmp')


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


def check_layout(name: str, root: str) -> LayoutReport:
    """Look whether a folder holds a data set as the configs expect it.

    Every file that is named must be there; one sample of each split is opened.

    Args:
        name (str): A key of ``LAYOUTS``.
        root (str): The folder.

    Returns:
        LayoutReport: What was found.

    Raises:
        ValueError: There is no such name.
    """
    if name not in LAYOUTS:
        raise SettingError(f'there is no check for {name!r}; there are {", ".join(LAYOUTS)}')
    report = LayoutReport()
    if not osp.isdir(root):
        report.problems.append(f'there is no folder {root} (that is, {osp.abspath(root)})')
    else:
        LAYOUTS[name](root, report)
    return report


def _ade20k(root: str, report: LayoutReport) -> None:
    # The archive unpacks to this folder, and the configs name it.
    inner = osp.join(root, 'ADEChallengeData2016')
    root = inner if osp.isdir(inner) else root
    for split, official in (('training', 20210), ('validation', 2000)):
        _segmentation_split(
            osp.join(root, 'images', split), osp.join(root, 'annotations', split), split, official, 150, report
        )


def _camvid(root: str, report: LayoutReport) -> None:
    for split in ('train', 'val'):
        _segmentation_split(
            osp.join(root, 'images', split), osp.join(root, 'annotations', split), split, 0, 11, report
        )


def _segmentation_split(
    images: str, labels: str, split: str, official: int, largest: int, report: LayoutReport
) -> None:
    folders = [folder for folder in (images, labels) if not osp.isdir(folder)]
    if folders:
        report.problems += [f'there is no folder {folder}' for folder in folders]
        return
    stems = {osp.splitext(name)[0]: name for name in _files(images)}
    report.count(f'{split} images', len(stems), official)
    unlabelled = sorted(set(stems) - {osp.splitext(name)[0] for name in _files(labels)})
    if unlabelled:
        names = format_list(unlabelled, 3)
        report.problems.append(f'{len(unlabelled)} images of {images} have no label in {labels}: {names}')
    paired = sorted(set(stems) - set(unlabelled))
    if not paired:
        report.problems.append(f'{images} holds no image with a label in {labels}')
        return
    stem = paired[0]
    image = _open(osp.join(images, stems[stem]), report)
    label = _open(osp.join(labels, f'{stem}.png'), report, flag='unchanged')
    if image is None or label is None:
        return
    if label.ndim != 2:
        report.problems.append(
            f'{labels}/{stem}.png has {label.shape[-1]} channels; a label map has one, the number of the class'
        )
    elif label.shape != image.shape[:2]:
        report.problems.append(
            f'{labels}/{stem}.png has {label.shape[0]} x {label.shape[1]} pixels, and its image {image.shape[0]} x '
            f'{image.shape[1]}'
        )
    elif label.max() > largest and label.max() != 255:
        report.problems.append(f'{labels}/{stem}.png holds the value {label.max()}; labels go up to {largest}')
    else:
        values = np.unique(label)
        report.facts.append(
            f'{split} sample {stem}: {image.shape[1]} x {image.shape[0]} pixels, {len(values)} label values from '
            f'{values[0]} to {values[-1]}'
        )


def _coco(root: str, report: LayoutReport) -> None:
    for split, official in (('train2017', 118287), ('val2017', 5000)):
        folder, annotations = osp.join(root, split), osp.join(root, 'annotations', f'instances_{split}.json')
        if not osp.isdir(folder):
            report.problems.append(f'there is no folder {folder}')
            continue
        if not osp.isfile(annotations):
            report.problems.append(f'there is no file {annotations}')
            continue
        try:
            with open(annotations, encoding='utf-8') as file:
                content = json.load(file)
            images, boxes = content['images'], content['annotations']
            names = {image['file_name']: image for image in images}
            categories = content['categories']
        except (ValueError, KeyError, TypeError) as error:
            report.problems.append(f'{annotations} is no COCO annotation file ({describe_error(error)})')
            continue
        report.count(f'{split} images', len(names), official)
        report.facts.append(f'{split} instances: {len(boxes):,} of {len(categories)} categories')
        if len(categories) != 80:
            report.problems.append(f'{annotations} has {len(categories)} categories; COCO has 80')
        if not boxes:
            report.problems.append(f'{annotations} has no instances')
        absent = sorted(set(names) - set(os.listdir(folder)))
        if absent:
            report.problems.append(f'{len(absent)} images of {annotations} are not in {folder}: {format_list(absent, 3)}')
        for name in sorted(set(names) - set(absent))[:1]:
            image, stated = _open(osp.join(folder, name), report), (names[name]['height'], names[name]['width'])
            if image is not None and image.shape[:2] != stated:
                report.problems.append(
                    f'{folder}/{name} has {image.shape[0]} x {image.shape[1]} pixels, and {annotations} says {stated[0]} x '
                    f'{stated[1]}'
                )
            elif image is not None:
                report.facts.append(f'{split} sample {name}: {image.shape[1]} x {image.shape[0]} pixels')


def _imagenet(root: str, report: LayoutReport) -> None:
    train, val, listing = osp.join(root, 'train'), osp.join(root, 'val'), osp.join(root, 'meta', 'val.txt')
    classes = _class_folders(train, report)
    if classes:
        _count_classes(train, classes, 'train', 1281167, report)
    if not osp.isdir(val):
        report.problems.append(f'there is no folder {val}')
    elif osp.isfile(listing):
        with open(listing, encoding='utf-8') as file:
            names = [line.split()[0] for line in file if line.strip()]
        report.count('val images', len(names), 50000)
        absent = sorted(set(names) - set(_files(val)) - _nested_files(val))
        if absent:
            report.problems.append(f'{len(absent)} images of {listing} are not in {val}: {format_list(absent, 3)}')
    else:
        folders = _class_folders(val, report, f'; or write {listing}, with a line "file class" for each image')
        if folders:
            _count_classes(val, folders, 'val', 50000, report)
            odd = sorted(set(classes) ^ set(folders))
            if classes and odd:
                report.problems.append(f'only one of {train} and {val} has {format_list(odd)}')


def _class_folders(folder: str, report: LayoutReport, otherwise: str = '') -> list[str]:
    if not osp.isdir(folder):
        report.problems.append(f'there is no folder {folder}')
        return []
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith('.'))
    if not classes:
        report.problems.append(f'{folder} has no folder for each class, such as {folder}/n01440764{otherwise}')
    return classes


def _count_classes(
    folder: str, names: list[str], split: str, official: int, report: LayoutReport, classes: int = 1000
) -> None:
    files = {name: _files(osp.join(folder, name)) for name in names}
    report.count(f'{split} classes', len(names), classes)
    report.count(f'{split} images', sum(map(len, files.values())), official)
    empty = [name for name in names if not files[name]]
    if empty:
        report.problems.append(f'{len(empty)} class folders of {folder} hold no image: {format_list(empty)}')
    for name in [name for name in names if files[name]][:1]:
        image = _open(osp.join(folder, name, files[name][0]), report)
        if image is not None:
            report.facts.append(f'{split} sample {name}/{files[name][0]}: {image.shape[1]} x {image.shape[0]} pixels')


def _folder(root: str, report: LayoutReport) -> None:
    classes = {split: _class_folders(osp.join(root, split), report) for split in ('train', 'test')}
    for split, names in classes.items():
        if names:
            _count_classes(osp.join(root, split), names, split, 0, report, classes=0)
    odd = sorted(set(classes['train']) ^ set(classes['test']))
    if all(classes.values()) and odd:
        names = format_list(odd)
        report.problems.append(f'only one of {root}/train and {root}/test has {names}; both need the same classes')
    few = [name for name in classes['train'] if len(_files(osp.join(root, 'train', name))) == 1]
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
        if not osp.isfile(path):
            report.problems.append(f'there is no file {path}')
        elif not check_md5(path, md5):
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
    inner = osp.join(root, 'ADEChallengeData2016')
    root = inner if name == 'ade20k' and osp.isdir(inner) else root
    return {split: _all_files(osp.join(root, split)) for split in _SPLITS[name]}


def _all_files(folder: str) -> list[str]:
    return sorted(
        osp.join(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(_IMAGES)
    )


def _files(folder: str) -> list[str]:
    """Names of a folder's images."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.name.lower().endswith(_IMAGES))


def _nested_files(folder: str) -> set[str]:
    """Images of the folders of a folder, as ``n01440764/x.JPEG``."""
    with os.scandir(folder) as entries:
        folders = [entry.name for entry in entries if entry.is_dir()]
    return {f'{name}/{file}' for name in folders for file in _files(osp.join(folder, name))}


def _open(path: str, report: LayoutReport, flag: str = 'color') -> np.ndarray | None:
    """Decode an image, H x W x 3 or H x W, or note why that cannot be done."""
    if not osp.isfile(path):
        report.problems.append(f'there is no file {path}')
        return None
    try:
        image = imread(path, flag=flag)
    except Exception as error:  # a decoder raises anything
        report.problems.append(f'{path} cannot be opened ({describe_error(error)})')
        return None
    if image is None:
        report.problems.append(f'{path} is no image, or not a whole one')
    return image
