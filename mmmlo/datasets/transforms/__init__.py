"""Transforms."""

from mmmlo.datasets.transforms.load_image import CorruptImageError, LoadImage, TooManyCorruptImagesError

__all__ = ['CorruptImageError', 'LoadImage', 'TooManyCorruptImagesError']
