"""The labelled images of an evaluation: a training and a test split, by name or from a folder."""

import hashlib
import json
import os
import os.path as osp
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmmlo.datasets import DatasetFolderError, SourceIndex, check_classes, check_dataset_folder, read_labels
from mmmlo.registry import DATASETS
from mmmlo.utils.errors import DataError
from mmmlo.utils.text import describe_error, format_list

__all__ = ['NAMED_DATA', 'EvaluationData', 'EvaluationDataError', 'find_data']

_TRAIN_TEST = dict(train=dict(split='train'), test=dict(split='test'))
_TRAINVAL_TEST = dict(train=dict(split='trainval'), test=dict(split='test'))
# Name -> what both splits share, and what each has of its own. 'bgr' says whether images come out of a file by OpenCV;
# 'layout' is what the folder must hold, for messages.
NAMED_DATA: dict[str, dict[str, Any]] = dict(
    digits=dict(common=dict(type='mmmlo.Digits'), **_TRAIN_TEST, bgr=False),
    cifar10=dict(common=dict(type='CIFAR10', data_root='data/cifar10'), **_TRAIN_TEST, bgr=False),
    cifar100=dict(common=dict(type='CIFAR100', data_root='data/cifar100'), **_TRAIN_TEST, bgr=False),
    # The official validation set is what everyone reports on.
    imagenet=dict(
        common=dict(type='ImageNet', data_root='data/imagenet'), train=dict(split='train'), test=dict(split='val'), bgr=True
    ),
    # All that is not the official test split is trained on, validation images included, as is usual on these.
    cub=dict(
        common=dict(type='CUB', data_root='data/cub'),
        **_TRAIN_TEST,
        bgr=True,
        layout='images/, images.txt, image_class_labels.txt and train_test_split.txt of CUB-200-2011',
    ),
    cars=dict(
        common=dict(type='StanfordCars', data_root='data/cars'),
        **_TRAIN_TEST,
        bgr=True,
        layout='car_ims/ and cars_annos.mat, or cars_train/, cars_test/ and, in devkit/, cars_train_annos.mat and '
        'cars_test_annos_withlabels.mat',
    ),
    food101=dict(
        common=dict(type='Food101', data_root='data/food101'),
        **_TRAIN_TEST,
        bgr=True,
        layout='images/ and, in meta/, train.txt and test.txt',
    ),
    flowers102=dict(
        # The archive has no names of classes, and neither has mmpretrain.
        common=dict(
            type='Flowers102', data_root='data/flowers102', metainfo=dict(classes=[f'flower {i}' for i in range(1, 103)])
        ),
        **_TRAINVAL_TEST,
        bgr=True,
        layout='jpg/, imagelabels.mat and setid.mat',
    ),
    pets=dict(
        common=dict(type='OxfordIIITPet', data_root='data/pets'),
        **_TRAINVAL_TEST,
        bgr=True,
        layout='images/ and, in annotations/, trainval.txt and test.txt',
    ),
    aircraft=dict(
        common=dict(type='FGVCAircraft', data_root='data/aircraft'),
        **_TRAINVAL_TEST,
        bgr=True,
        layout='data/images/ and, in data/, images_variant_trainval.txt and images_variant_test.txt',
    ),
    # The labels of the official test images were never released.
    inat2019=dict(
        common=dict(type='CustomDataset', data_root='data/inat2019', classes='meta/classes.txt'),
        train=dict(ann_file='meta/train.txt'),
        test=dict(ann_file='meta/val.txt'),
        bgr=True,
        layout='train_val2019/ and meta/, which tools/dataset_converters/inat2019.py writes',
    ),
)
# Up to this size whole images are resized, as the configs for small images do; above it they are cropped.
_SMALL = 64


class EvaluationDataError(DataError):
    """Images or labels that cannot be evaluated on."""


@dataclass
class EvaluationData:
    """The two splits of a data set.

    Attributes:
        name (str): What to call it in results.
        splits (dict[str, dict]): 'train' and 'test' -> config of the dataset, without a pipeline.
        bgr (bool): Whether the images come with OpenCV's order of channels.
        layout (str): What the folder must hold, for messages; empty where mmpretrain's own are clear. Defaults to ''.
    """

    name: str
    splits: dict[str, dict]
    bgr: bool
    layout: str = ''
    _built: dict[tuple, Any] = field(default_factory=dict, repr=False)
    _fingerprints: dict[tuple, str] = field(default_factory=dict, repr=False)
    _apart: bool = field(default=False, repr=False)

    def pipeline(self, image_size: tuple[int, int]) -> list[dict]:
        """Transforms that bring an image to the size of the encoder, without augmentation.

        Small or oblong images are resized as a whole. Others have their short edge resized to 256 for 224 pixels, and the
        centre cropped: the usual evaluation of ImageNet.
        """
        height, width = image_size
        bicubic: dict[str, Any] = dict(backend='pillow', interpolation='bicubic')
        transforms: list[dict[str, Any]] = [dict(type='mmmlo.LoadImage')] if self.bgr else []
        if not self.bgr or height != width or height <= _SMALL:
            transforms.append(dict(type='Resize', scale=(width, height), **bicubic))
        else:
            transforms.append(dict(type='ResizeEdge', scale=round(height * 256 / 224), edge='short', **bicubic))
            transforms.append(dict(type='CenterCrop', crop_size=height))
        return [*transforms, dict(type='PackInputs')]

    def config(self, split: str, image_size: tuple[int, int]) -> dict:
        """The config of a split's dataset for an encoder of so many pixels."""
        return dict(self.splits[split], pipeline=self.pipeline(image_size))

    def build(self, split: str, image_size: tuple[int, int]) -> Any:
        """Build the dataset of a split, once for each image size.

        Raises:
            DatasetFolderError: The folder of the data is not there.
            EvaluationDataError: The folder holds something else, a class is without images, or there are no labels.
        """
        key = (split, tuple(image_size))
        if key not in self._built:
            where = f'--data {self.name}, {split} split'
            with DATASETS.switch_scope_and_registry('mmpretrain') as registry:
                if self.layout:
                    self._check_root()
                check_dataset_folder(self.splits[split], f'--data {self.name}')
                try:
                    dataset = registry.build(self.config(split, image_size))
                except Exception as error:  # each class has its own, few of which name a file
                    if not self.layout:
                        raise
                    root = self.splits[split]['data_root']
                    raise EvaluationDataError(
                        f'--data {self.name}: {root} cannot be read ({describe_error(error)}). '
                        f'It must hold {self.layout}.'
                    ) from error
            try:
                check_classes(read_labels(dataset), dataset.metainfo.get('classes'), where)
            except ValueError as error:
                raise EvaluationDataError(str(error)) from error
            self._built[key] = dataset
        return self._built[key]

    def _check_root(self) -> None:
        root = self.splits['train']['data_root']
        if not osp.isdir(osp.expanduser(root)):
            raise DatasetFolderError(
                f'--data {self.name}: there is no folder {root} (that is, {osp.abspath(osp.expanduser(root))}). Put the '
                f'data there, or name its folder by --data-root. It must hold {self.layout}.'
            )

    def check_apart(self, image_size: tuple[int, int]) -> None:
        """Check that no file, or entry of an archive, is in both splits.

        Raises:
            EvaluationDataError: The splits share images.
        """
        if self._apart:  # the size of an encoder moves no image to another split
            return
        train, test = (self.build(split, image_size) for split in ('train', 'test'))
        shared = SourceIndex().shared(train, test)
        if shared:
            raise EvaluationDataError(
                f'--data {self.name}: the test split shares {len(shared)} of its {len(test)} images with the training '
                f'split, for example {min(shared)}. Test images must be ones that nothing was fitted to.'
            )
        self._apart = True

    def check_shots(self, shots: int, image_size: tuple[int, int]) -> None:
        """Check that every class has so many training images.

        Raises:
            EvaluationDataError: A class has fewer.
        """
        dataset = self.build('train', image_size)
        counts = np.bincount(read_labels(dataset))
        rarest = int(counts.argmin())
        if counts[rarest] < shots:
            raise EvaluationDataError(
                f'--shots {shots}: class {dataset.metainfo["classes"][rarest]} of --data {self.name} has only '
                f'{counts[rarest]} training images; give --shots up to {counts[rarest]}'
            )

    def fingerprint(self, split: str, image_size: tuple[int, int]) -> str:
        """A hash of the split's annotations, pipeline and files (path, size and time of the last change).

        The content of images in memory counts too. It costs one look at each file's metadata, once for each image size.
        """
        key = (split, tuple(image_size))
        if key not in self._fingerprints:
            self._fingerprints[key] = self._hash(split, image_size)
        return self._fingerprints[key]

    def _hash(self, split: str, image_size: tuple[int, int]) -> str:
        dataset = self.build(split, image_size)
        digest = hashlib.sha256(json.dumps(self.config(split, image_size), sort_keys=True, default=str).encode())
        digest.update(np.ascontiguousarray(dataset.data_bytes).tobytes())
        if 'img_path' in dataset.get_data_info(0):
            for i in range(len(dataset)):
                path = dataset.get_data_info(i)['img_path']
                status = os.stat(path)
                digest.update(f'{path}:{status.st_size}:{status.st_mtime_ns};'.encode())
        return digest.hexdigest()


def find_data(data: str, data_root: str | None = None) -> EvaluationData:
    """Find a data set by its name, or make one of a folder.

    A folder has ``train/<class>/*`` and ``test/<class>/*``, or ``val`` in place of ``test``; both have the same classes.

    Args:
        data (str): A key of ``NAMED_DATA``, or a folder.
        data_root (str, optional): Where a data set with a name lies. Defaults to ``data/<name>``.

    Returns:
        EvaluationData: Its splits; nothing is read yet.

    Raises:
        EvaluationDataError: No such name or folder, or a folder without splits, classes or labels.
    """
    if data in NAMED_DATA:
        found = NAMED_DATA[data]
        common = dict(found['common'], **({'data_root': data_root} if data_root and 'data_root' in found['common'] else {}))
        if 'classes' in common:  # a file, which mmpretrain looks for in the current folder
            common['classes'] = osp.join(common['data_root'], common['classes'])
        named = {split: dict(common, **found[split]) for split in ('train', 'test')}
        return EvaluationData(data, named, found['bgr'], found.get('layout', ''))
    if not osp.isdir(data):
        raise EvaluationDataError(
            f'--data {data} is neither a folder nor one of {", ".join(sorted(NAMED_DATA))}. A folder has '
            'train/<class>/* and test/<class>/*.'
        )
    test = next((name for name in ('test', 'val') if osp.isdir(osp.join(data, name))), None)
    if test is None or not osp.isdir(osp.join(data, 'train')):
        raise EvaluationDataError(
            f'--data {data} holds {format_list(sorted(os.listdir(data))) or "nothing"}; '
            'it needs train/<class>/* and test/<class>/*'
        )
    classes = {split: _class_folders(osp.join(data, split)) for split in ('train', test)}
    if classes['train'] != classes[test]:
        odd = sorted(set(classes['train']) ^ set(classes[test]))
        raise EvaluationDataError(
            f'--data {data}: train and {test} do not have the same classes; only one of them has {format_list(odd)}'
        )
    splits: Mapping[str, str] = dict(train='train', test=test)
    common = dict(type='CustomDataset', data_root=osp.abspath(data))
    name = osp.basename(osp.abspath(data))
    folders = {split: dict(common, data_prefix=folder) for split, folder in splits.items()}
    return EvaluationData(name, folders, bgr=True)


def _class_folders(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        names = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith('.'))
    classes = [name for name, is_folder in names if is_folder]
    if not classes:
        held = f'{len(names)} files, such as {names[0][0]}, and' if names else 'nothing, so'
        raise EvaluationDataError(
            f'--data: {folder} holds {held} no folder, so nothing says which class an image has. Put images into '
            f'{folder}/<class>/.'
        )
    if len(classes) < 2:
        raise EvaluationDataError(f'--data: {folder} holds the one class {classes[0]}; there is nothing to tell apart')
    return classes
