"""Transforms."""

from mmmlo.datasets.transforms.load_image import CorruptImageError, LoadImage, TooManyCorruptImagesError
from mmmlo.datasets.transforms.torch_random_resized_crop import TorchRandomResizedCrop

__all__ = ['CorruptImageError', 'LoadImage', 'TooManyCorruptImagesError', 'TorchRandomResizedCrop']
