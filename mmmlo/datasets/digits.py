"""scikit-learn's scanned digits as a dataset of images."""

from functools import lru_cache

import cv2
import numpy as np
from mmpretrain.datasets import BaseDataset
from sklearn.datasets import load_digits

from mmmlo.datasets.split_dataset import stratified_parts
from mmmlo.registry import DATASETS
from mmmlo.utils.errors import DataError

__all__ = ['Digits']


@lru_cache(maxsize=1)
def _scans() -> tuple[np.ndarray, np.ndarray]:
    """The scans, 1797 x 8 x 8, uint8, and their labels; a config builds several of these datasets."""
    scans, labels = load_digits(return_X_y=True)
    return np.rint(scans.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), labels


@DATASETS.register_module()
class Digits(BaseDataset):
    """The 1,797 handwritten digits that come with scikit-learn, as RGB images. Nothing is downloaded.

    The scans are 8 x 8 with 17 grey levels; they are stretched to 0-255 and resized with bicubic interpolation. ``source``
    says which scan a sample is, so that :mod:`mmmlo.datasets.sources` can tell them apart. The data set has no split of its
    own. This one is fixed: a stratified cut into 1,438 training and 359 test images with seed 0.

    Args:
        split (str): 'train' or 'test'. Defaults to 'train'.
        size (int): Height and width of the images. Defaults to 32.
        **kwargs: Other arguments of :class:`mmpretrain.datasets.BaseDataset`, as ``pipeline`` or ``indices``.
    """

    METAINFO = {'classes': tuple('0123456789')}

    def __init__(self, split: str = 'train', size: int = 32, **kwargs) -> None:
        if split not in ('train', 'test'):
            raise DataError(f"`split` of Digits must be 'train' or 'test', not {split!r}.")
        if not isinstance(size, int) or size < 1:
            raise DataError(f'`size` of Digits must be a positive number of pixels, not {size!r}.')
        self.split = split
        self.size = size
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Load and resize the images of the split."""
        scans, labels = _scans()
        chosen = stratified_parts(labels, {'train': 0.8, 'test': 0.2}, seed=0)[self.split]
        data_list = []
        for i in chosen:
            image = cv2.resize(scans[i], (self.size, self.size), interpolation=cv2.INTER_CUBIC)
            image = np.repeat(image[..., None], 3, axis=2)
            data_list.append({'img': image, 'gt_label': int(labels[i]), 'source': f'Digits#{i}'})
        return data_list
