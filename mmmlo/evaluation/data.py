"""The labelled images of an evaluation: a training and a test split, by name or from a folder."""

import hashlib
import json
import os
import os.path as osp
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from mmmlo.datasets import SourceIndex, check_classes, check_dataset_folder, read_labels
from mmmlo.datasets.split_guard import check_same_classes
from mmmlo.registry import DATASETS
from mmmlo.utils.errors import DataError
from mmmlo.utils.text import describe_error, format_list

__all__ = ['NAMED_DATA', 'EvaluationData', 'find_data']


def _named(
    kind: str, root: str, train: str = 'train', test: str = 'test', bgr: bool = True, layout: str = '', **settings: Any
) -> dict[str, Any]:
    common = dict(type=kind, **({'data_root': f'data/{root}'} if root else {}), **settings)
    return dict(common=common, train=dict(split=train), test=dict(split=test), bgr=bgr, layout=layout)


# Name -> what both splits share, and what each has of its own. 'bgr' says whether images come out of a file by OpenCV;
# 'layout' is what the folder must hold, for messages; empty where mmpretrain's own are clear.
NAMED_DATA: dict[str, dict[str, Any]] = dict(
    digits=_named('mmmlo.Digits', '', bgr=False),
    # Several fixed images of each scan: the same ones for every encoder.
    cluttered_digits=dict(
        common=dict(type='mmmlo.ClutteredDigits', fresh=False),
        train=dict(split='train', copies=3), test=dict(split='test', copies=5), bgr=False, layout=''),
    cifar10=_named('CIFAR10', 'cifar10', bgr=False),
    cifar100=_named('CIFAR100', 'cifar100', bgr=False),
    # The official validation set is what everyone reports on.
    imagenet=_named('ImageNet', 'imagenet', test='val'),
    # All that is not the official test split is trained on, validation images included, as is usual on these.
    cub=_named('CUB', 'cub', layout='images/, images.txt, image_class_labels.txt and train_test_split.txt of CUB-200-2011'),
    cars=_named(
        'StanfordCars', 'cars', layout='car_ims/ and cars_annos.mat, or cars_train/, cars_test/ and, in devkit/, '
        'cars_train_annos.mat and cars_test_annos_withlabels.mat'),
    food101=_named('Food101', 'food101', layout='images/ and, in meta/, train.txt and test.txt'),
    # The archive has no names of classes, and neither has mmpretrain.
    flowers102=_named(
        'Flowers102', 'flowers102', 'trainval', layout='jpg/, imagelabels.mat and setid.mat',
        metainfo=dict(classes=[f'flower {i}' for i in range(1, 103)])),
    pets=_named('OxfordIIITPet', 'pets', 'trainval', layout='images/ and, in annotations/, trainval.txt and test.txt'),
    aircraft=_named(
        'FGVCAircraft', 'aircraft', 'trainval',
        layout='data/images/ and, in data/, images_variant_trainval.txt and images_variant_test.txt'),
    # The labels of the official test images were never released.
    inat2019=dict(
        common=dict(type='CustomDataset', data_root='data/inat2019', classes='meta/classes.txt'),
        train=dict(ann_file='meta/train.txt'), test=dict(ann_file='meta/val.txt'), bgr=True,
        layout='train_val2019/ and meta/, which tools/dataset_converters/inat2019.py writes'),
)
# Up to this size whole images are resized, as the configs for small images do; above it they are cropped.
_SMALL = 64


@dataclass(eq=False)  # told apart by identity: few live, and long, so that methods can be cached
class EvaluationData:
    """The two splits of a data set.

    Attributes:
        name (str): What to call it in results.
        splits (dict[str, dict]): 'train' and 'test' -> config of the dataset, without a pipeline.
        bgr (bool): Whether the images come with OpenCV's order of channels.
        layout (str): What the folder must hold, for messages; empty where mmpretrain's own are clear. Defaults to ''.
        loader (dict): The transform that loads images from files, of which an encoder knows channels and depth.
    """

    name: str
    splits: dict[str, dict]
    bgr: bool
    layout: str = ''
    loader: dict = field(default_factory=lambda: dict(type='mmmlo.LoadImage'))

    def config(self, split: str, image_size: tuple[int, int]) -> dict:
        """The config of a split's dataset, whose pipeline brings images to so many pixels without augmentation.

        Small or oblong images are resized as a whole. Others have their short edge resized to 256 for 224 pixels, and the
        centre cropped: the usual evaluation of ImageNet.
        """
        height, width = image_size
        bicubic: dict[str, Any] = dict(backend='pillow', interpolation='bicubic')
        if self.loader.get('channels', 3) not in (1, 3) or self.loader.get('to_float32'):  # which Pillow does not resize
            bicubic = dict(backend='cv2', interpolation='area')
        transforms: list[dict[str, Any]] = [self.loader] if self.bgr else []
        if not self.bgr or height != width or height <= _SMALL:
            transforms.append(dict(type='Resize', scale=(width, height), **bicubic))
        else:
            transforms.append(dict(type='ResizeEdge', scale=round(height * 256 / 224), edge='short', **bicubic))
            transforms.append(dict(type='CenterCrop', crop_size=height))
        return dict(self.splits[split], pipeline=[*transforms, dict(type='PackInputs')])

    @cache  # noqa: B019
    def build(self, split: str, image_size: tuple[int, int]) -> Any:
        """Build the dataset of a split, once for each image size.

        Raises:
            DataError: The folder is not there or holds something else, a class is without images, or there are no labels.
        """
        root = self.splits[split].get('data_root', '')
        where = f'--data {self.name}, {split} split'
        with DATASETS.switch_scope_and_registry('mmpretrain') as registry:
            try:
                check_dataset_folder(self.splits[split], f'--data {self.name}')
                dataset = registry.build(self.config(split, image_size))
            except Exception as error:  # each class has its own, few of which name a file
                if not self.layout:
                    raise
                raise DataError(
                    f'--data {self.name}: {root} cannot be read ({describe_error(error)}). It must hold {self.layout}; '
                    '--data-root names another folder.'
                ) from error
        classes = dataset.metainfo['classes']
        if len(classes) < 2:
            raise DataError(f'{where}: {root} holds the one class {classes[0]}; there is nothing to tell apart.')
        # In the test split a class may be without images.
        present = [] if split == 'train' else range(len(classes))
        check_classes(np.append(read_labels(dataset), present).astype(int), classes, where)
        return dataset

    @cache  # noqa: B019
    def check(self, image_size: tuple[int, int], shots: int = 1) -> None:
        """Check that the splits have the same classes, ``shots`` training images of each, and no file in common.

        Raises:
            DataError: They have not.
        """
        train, test = (self.build(split, image_size) for split in ('train', 'test'))
        check_same_classes({f'--data {self.name}, train split': train, f'--data {self.name}, test split': test})
        counts = np.bincount(read_labels(train))
        rarest = int(counts.argmin())
        if counts[rarest] < shots:
            raise DataError(
                f'--shots {shots}: class {train.metainfo["classes"][rarest]} of --data {self.name} has only '
                f'{counts[rarest]} training images; give --shots up to {counts[rarest]}'
            )
        shared = SourceIndex().shared(train, test)
        if shared:
            raise DataError(
                f'--data {self.name}: the test split shares {len(shared)} of its {len(test)} images with the training '
                f'split, for example {min(shared)}. Test images must be ones that nothing was fitted to.'
            )

    @cache  # noqa: B019
    def fingerprint(self, split: str, image_size: tuple[int, int]) -> str:
        """Hash the split's annotations, pipeline and files (path, size and time of the last change), or images in memory."""
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
    """Find a data set by its name, which may lie in ``data_root``, or make one of a folder; nothing is read yet.

    A folder has ``train/<class>/*`` and ``test/<class>/*``, or ``val`` in place of ``test``; both have the same classes.

    Raises:
        DataError: No such name or folder, or a folder without splits.
    """
    if data in NAMED_DATA:
        found = NAMED_DATA[data]
        common = dict(found['common'], **({'data_root': data_root} if data_root and 'data_root' in found['common'] else {}))
        if 'classes' in common:  # a file, which mmpretrain looks for in the current folder
            common['classes'] = osp.join(common['data_root'], common['classes'])
        named = {split: dict(common, **found[split]) for split in ('train', 'test')}
        return EvaluationData(data, named, found['bgr'], found['layout'])
    if not osp.isdir(data):
        raise DataError(
            f'--data {data} is neither a folder nor one of {", ".join(sorted(NAMED_DATA))}. A folder has '
            'train/<class>/* and test/<class>/*.'
        )
    test = next((name for name in ('test', 'val') if osp.isdir(osp.join(data, name))), None)
    if test is None or not osp.isdir(osp.join(data, 'train')):
        raise DataError(
            f'--data {data} holds {format_list(sorted(os.listdir(data))) or "nothing"}; '
            'it needs train/<class>/* and test/<class>/*'
        )
    common = dict(type='mmmlo.ImageFolder', data_root=osp.abspath(data))
    splits = dict(train=dict(common, data_prefix='train'), test=dict(common, data_prefix=test))
    return EvaluationData(osp.basename(osp.abspath(data)), splits, bgr=True)
