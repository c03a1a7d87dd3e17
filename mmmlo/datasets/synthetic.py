"""Images made from a seed, for runs that only have to run."""

import numpy as np
from mmpretrain.datasets import BaseDataset

from mmmlo.registry import DATASETS


@DATASETS.register_module()
class SyntheticImages(BaseDataset):
    """Noise with a bright square whose place depends on the class.

    Stands in for data that is not there in shrunken configs (:func:`mmmlo.launch.shrink.shrink`); its numbers mean nothing.

    Args:
        split (str): 'train' or 'test'; they differ in their noise. Defaults to 'train'.
        num_classes (int): Defaults to 10.
        per_class (int): Images of each class. Defaults to 16.
        size (int): Height and width in pixels. Defaults to 36.
        maps (bool): Whether there are maps of labels for mmseg: the class in the square, 255 around it. Defaults to False.
        boxes (bool): Whether there are boxes for mmdet: the square. Defaults to False.
        **kwargs: Arguments of mmpretrain's ``BaseDataset``, such as ``pipeline``.
    """

    def __init__(
        self,
        split: str = 'train',
        num_classes: int = 10,
        per_class: int = 16,
        size: int = 36,
        maps: bool = False,
        boxes: bool = False,
        **kwargs,
    ) -> None:
        self.split = split
        self.num_classes = num_classes
        self.per_class = per_class
        self.size = size
        self.maps = maps
        self.boxes = boxes
        metainfo = dict(classes=[f'class {label}' for label in range(num_classes)])
        super().__init__(ann_file='', metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Make the images, H x W x 3 in uint8, and their labels."""
        random = np.random.RandomState(0 if self.split == 'train' else 1)
        data = []
        for index in range(self.num_classes * self.per_class):
            label = index % self.num_classes
            img = random.randint(0, 128, (self.size, self.size, 3)).astype(np.uint8)
            row, column = divmod(label * 7 % 16, 4)
            side = self.size // 4
            square = slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side)
            img[square] += 100
            data.append(dict(img=img, gt_label=label))
            if self.maps:
                labels = np.full(img.shape[:2], 255, np.uint8)
                labels[square] = label
                data[-1].update(
                    gt_seg_map=labels,
                    seg_fields=['gt_seg_map'],
                    img_shape=img.shape[:2],
                    ori_shape=img.shape[:2],
                    source=f'{self.split} with maps#{index}',  # others than those without
                )
            if self.boxes:
                corners = [column * side, row * side, (column + 1) * side, (row + 1) * side]
                data[-1].update(
                    instances=[dict(bbox=corners, bbox_label=label, ignore_flag=0)],
                    img_shape=img.shape[:2],
                    ori_shape=img.shape[:2],
                    source=f'{self.split} with boxes#{index}',
                )
        return data
