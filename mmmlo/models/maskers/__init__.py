from .base import BaseMasker, mask_statistics
from .conv import ConvMasker
from .mlp import MLPMasker
from .random import RandomMasker
from .vit import ViTMasker

__all__ = ['BaseMasker', 'ConvMasker', 'MLPMasker', 'RandomMasker', 'ViTMasker', 'mask_statistics']
