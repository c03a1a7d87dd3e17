"""Transforms."""

from mmmlo.datasets.transforms.load_image import CorruptImageError, LoadImage
from mmmlo.datasets.transforms.torch_random_resized_crop import TorchRandomResizedCrop

__all__ = ['CorruptImageError', 'LoadImage', 'TorchRandomResizedCrop']
