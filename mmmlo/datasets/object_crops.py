"""Crops of scenes around their objects: images in which a small part matters."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import mmcv
import numpy as np
from mmpretrain.datasets import BaseDataset

from mmmlo.registry import DATASETS
from mmmlo.utils.errors import DataError

__all__ = ['ObjectCrops']


@lru_cache(maxsize=512)
def _read(path: str, flag: str) -> np.ndarray:
    """Read an image, RGB or unchanged; each is read again in every epoch, and often several times."""
    return mmcv.imread(path, flag=flag, channel_order='rgb')


@DATASETS.register_module()
class ObjectCrops(BaseDataset):
    """Square pieces of a segmentation data set's images, a few times as large as the object in each, which is the label.

    An object is a connected region of one class. Of a training image, place and scale are drawn anew each time that it is
    read, from NumPy's generator, which :class:`mmmlo.datasets.SeededDataset` seeds by sample; with ``fresh=False`` they
    depend on ``seed`` and the object alone. Images are RGB in uint8.

    ``worth`` tells how much of the object is in each pixel, H x W, from 0 to 1; see :class:`ClutteredDigits`.

    Args:
        data_root (str): Folder of the scenes.
        data_prefix (dict): Folders of images and label maps in it, as mmseg has them.
        scenes (dict): A data set of mmseg's ``BaseSegDataset``, of which the paths and classes are used.
        classes (Sequence[str]): Classes of the objects.
        size (int): Side of the crops in pixels. Defaults to 64.
        context (tuple[float, float]): Least and largest side of a crop over the object's longer one. Defaults to (3, 5).
        min_side (int): Least of an object's shorter side in pixels. Defaults to 8.
        copies (int): Crops of each object. Defaults to 1.
        fresh (bool): Whether crops are drawn anew each time. Defaults to True.
        seed (int): Seed of crops that are not drawn anew. Defaults to 0.
        **kwargs: Other arguments of :class:`mmpretrain.datasets.BaseDataset`, as ``pipeline`` or ``indices``.

    Raises:
        DataError: A class is unknown, or there is no object of these classes and sizes.
    """

    def __init__(
        self,
        data_root: str,
        data_prefix: dict,
        scenes: dict,
        classes: Sequence[str],
        size: int = 64,
        context: tuple[float, float] = (3, 5),
        min_side: int = 8,
        copies: int = 1,
        fresh: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        self.scenes = DATASETS.build(dict(scenes, data_root=data_root, data_prefix=data_prefix, pipeline=[]))
        unknown = set(classes) - set(self.scenes.metainfo['classes'])
        if unknown:
            raise DataError(
                f'classes of ObjectCrops: {sorted(unknown)} are none of {type(self.scenes).__name__}, which has '
                f'{", ".join(self.scenes.metainfo["classes"])}'
            )
        self.size, self.context, self.min_side = size, context, min_side
        self.copies, self.fresh, self.seed = copies, fresh, seed
        super().__init__(ann_file='', metainfo=dict(classes=tuple(classes)), **kwargs)

    def load_data_list(self) -> list[dict]:
        """List the objects, each as often as there are copies."""
        objects = []
        for scene in map(self.scenes.get_data_info, range(len(self.scenes))):
            label_map = _read(scene['seg_map_path'], 'unchanged')
            first_label = int(scene['reduce_zero_label'])  # as of ADE20K, where 0 is no class
            for label, name in enumerate(self.metainfo['classes']):
                of_class = label_map == first_label + self.scenes.metainfo['classes'].index(name)
                _, regions, boxes, _ = cv2.connectedComponentsWithStats(of_class.astype(np.uint8))
                for region, (left, top, width, height, area) in enumerate(boxes.tolist()[1:], start=1):
                    crop = self.context[0] * max(width, height)
                    # Regions that fill little of their box are what others hide in part.
                    if min(width, height) >= self.min_side and crop <= min(label_map.shape) and area > 0.3 * width * height:
                        mask = regions[top : top + height, left : left + width] == region
                        box = left, top, width, height
                        objects.append(dict(img_path=scene['img_path'], box=box, mask=mask, gt_label=label))
        if not objects:
            raise DataError(
                f'{type(self.scenes).__name__} has no object of {self.metainfo["classes"]} whose shorter side is at least '
                f'min_side, {self.min_side}, and around which a crop of context[0], {self.context[0]}, sides fits'
            )
        return [dict(item, draw=(copy, index)) for copy in range(self.copies) for index, item in enumerate(objects)]

    def prepare_data(self, idx: int) -> Any:
        """Cut a crop, and run the pipeline on ``img``, ``gt_label`` and ``worth``."""
        data = self.get_data_info(idx)
        random = np.random if self.fresh else np.random.RandomState([self.seed, *data['draw']])
        image, (left, top, width, height) = _read(data['img_path'], 'color'), data['box']
        worth = np.zeros(image.shape[:2], np.float32)
        worth[top : top + height, left : left + width] = data['mask']
        side = min(round(random.uniform(*self.context) * max(width, height)), *image.shape[:2])
        rows, columns = (
            _start(random, first, extent, side, total)
            for first, extent, total in ((top, height, image.shape[0]), (left, width, image.shape[1]))
        )
        window = slice(rows, rows + side), slice(columns, columns + side)
        img, worth = (cv2.resize(x[window], (self.size, self.size), interpolation=cv2.INTER_AREA) for x in (image, worth))
        return self.pipeline(dict(data, img=img, worth=worth))


def _start(random: Any, first: int, extent: int, side: int, total: int) -> int:
    """Draw where a window of this side begins that holds the object and lies within the image."""
    return random.randint(max(0, first + extent - side), min(first, total - side) + 1)
