"""Transforms."""

from mmmlo.datasets.transforms.load_image import CorruptImageError, LoadImage

__all__ = ['CorruptImageError', 'LoadImage']
