"""Scanned digits on pieces of photographs: images whose patches differ in worth, and which tell by how much."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from mmpretrain.datasets import BaseDataset
from sklearn.datasets import load_sample_images

from mmmlo.registry import DATASETS
from mmmlo.utils.errors import DataError

from .digits import Digits

__all__ = ['ClutteredDigits']

# What an image can be asked -> the answers.
TARGETS = dict(
    digit=tuple('0123456789'),
    parity=('even', 'odd'),
    half=('below 5', '5 or more'),
    presence=('no digit', 'a digit'),
    place=('top left', 'top right', 'bottom left', 'bottom right'),
    colour=('red', 'green', 'blue'),
    photograph=('china', 'flower'),
)


@lru_cache(maxsize=1)
def _photographs() -> list[np.ndarray]:
    """scikit-learn's two photographs, 427 x 640 x 3, RGB in uint8."""
    return load_sample_images().images


@DATASETS.register_module()
class ClutteredDigits(BaseDataset):
    """scikit-learn's scanned digits, coloured, at random places on random pieces of its two photographs. No download.

    Training images lie on the left two thirds of the photographs, test images on the rest. Of a training image, place,
    colour and background are drawn anew each time that it is read, from NumPy's generator, which
    :class:`mmmlo.datasets.SeededDataset` seeds by sample; of a test image, and with ``fresh=False``, they depend on
    ``seed`` and the image alone. Images are RGB in uint8.

    ``worth`` tells how much of the digit is in each pixel, H x W, from 0 to 1. It is for measuring and for oracles, and
    reaches a model only where a config's ``PackInputs`` names it among ``meta_keys``.

    Args:
        split (str): 'train' or 'test'; the scans are parted as in :class:`Digits`. Defaults to 'train'.
        size (int): Side of the images in pixels. Defaults to 32.
        digit_size (int): Side of the digits in pixels. Defaults to 20.
        clutter (float): Contrast of the background, from 0, uniform grey, to 1, the photograph. Defaults to 0.6.
        num_distractors (int): Scans with shuffled pixels, a third as large as the digit, that lie around. Defaults to 0.
        target (str): What the label says; with 'presence', every other image has no digit. Defaults to 'digit'.
        copies (int): Images of each scan. Defaults to 1.
        fresh (bool, optional): Whether images are drawn anew each time. Defaults to None: those of training are.
        seed (int): Seed of images that are not drawn anew. Defaults to 0.
        **kwargs: Other arguments of :class:`mmpretrain.datasets.BaseDataset`, as ``pipeline`` or ``indices``.

    Raises:
        DataError: The digit is larger than the image, the clutter outside [0, 1], or the target not one of these.
    """

    def __init__(
        self,
        split: str = 'train',
        size: int = 32,
        digit_size: int = 20,
        clutter: float = 0.6,
        num_distractors: int = 0,
        target: str = 'digit',
        copies: int = 1,
        fresh: bool | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        if not 8 <= digit_size <= size:
            raise DataError(f'digit_size of ClutteredDigits must be from 8 to size, {size}, got {digit_size}')
        if not 0 <= clutter <= 1:
            raise DataError(f'clutter of ClutteredDigits must be from 0 to 1, got {clutter}')
        if target not in TARGETS:
            raise DataError(f'target of ClutteredDigits must be one of {", ".join(TARGETS)}, got {target!r}')
        self.digits = Digits(split=split, size=8)
        self.split, self.size, self.digit_size, self.clutter = split, size, digit_size, clutter
        self.num_distractors, self.target, self.copies, self.seed = num_distractors, target, copies, seed
        self.fresh = split == 'train' if fresh is None else fresh
        super().__init__(ann_file='', metainfo=dict(classes=TARGETS[target]), **kwargs)

    def load_data_list(self) -> list[dict]:
        """List the scans, each as often as there are copies, with the label where the scan alone tells it.

        Otherwise the label is known when the image is drawn; the one here lets a split cut all the same.
        """
        data_list = []
        for copy in range(self.copies):
            for index in range(len(self.digits)):
                scan = self.digits.get_data_info(index)
                digit = scan['gt_label']
                told = dict(digit=digit, parity=digit % 2, half=digit // 5)
                label = told.get(self.target, index % len(TARGETS[self.target]))
                pixels = scan['img'][..., 0]
                data_list.append(
                    dict(scan=pixels, digit=digit, gt_label=label, draw=(copy, index), source=scan['source'])
                )
        return data_list

    def prepare_data(self, idx: int) -> Any:
        """Draw an image, and run the pipeline on ``img``, ``gt_label`` and ``worth``."""
        data = self.get_data_info(idx)
        random = np.random if self.fresh else np.random.RandomState([self.seed, *data['draw']])
        return self.pipeline(dict(data, **self._draw_image(data, random)))

    def _draw_image(self, data: Mapping, random: Any) -> dict:
        size, side = self.size, self.digit_size
        photograph = random.randint(2)
        height, width, _ = _photographs()[photograph].shape
        border = width * 2 // 3
        left, right = (0, border) if self.split == 'train' else (border, width)
        row, column = random.randint(height - size + 1), random.randint(left, right - size + 1)
        image = _photographs()[photograph][row : row + size, column : column + size] / 255
        image = 0.45 + self.clutter * (image - 0.45)  # H x W x 3

        for _ in range(self.num_distractors):
            pixels = random.permutation(data['scan'].ravel()).reshape(8, 8)
            image, _, _ = self._paste(image, pixels, side // 3, random.uniform(0.7, 1, 3), random)
        colour = random.uniform(0.7, 1, 3)
        present = self.target != 'presence' or random.randint(2)
        worth, (top, left) = np.zeros((size, size)), (0, 0)
        if present:
            image, worth, (top, left) = self._paste(image, data['scan'], side, colour, random)
        middle = (size - side) / 2
        answers = dict(
            digit=data['digit'],
            parity=data['digit'] % 2,
            half=data['digit'] // 5,
            presence=int(present),
            place=2 * (top > middle) + (left > middle),
            colour=int(colour.argmax()),
            photograph=photograph,
        )
        image = np.rint(255 * image).astype(np.uint8)
        return dict(img=image, gt_label=int(answers[self.target]), worth=worth.astype(np.float32))

    @staticmethod
    def _paste(image: np.ndarray, scan: np.ndarray, side: int, colour: np.ndarray, random: Any) -> tuple:
        """Lay a scan on an image at a random place; returns the image, the alpha, H x W, and the upper left corner."""
        top, left = random.randint(image.shape[0] - side + 1, size=2)
        alpha = np.zeros(image.shape[:2])
        alpha[top : top + side, left : left + side] = cv2.resize(scan / 255, (side, side), interpolation=cv2.INTER_LINEAR)
        return image + alpha[..., None] * (colour - image), alpha, (top, left)

    def extra_repr(self) -> list[str]:
        """The lines that ``repr`` adds."""
        return [f'{name}: \t{getattr(self, name)}' for name in ('split', 'size', 'digit_size', 'clutter', 'target')]
