from .base import BaseMasker
from .conv import ConvMasker
from .mlp import MLPMasker
from .random import RandomMasker
from .statistics import mask_statistics
from .vit import ViTMasker

__all__ = ['BaseMasker', 'ConvMasker', 'MLPMasker', 'RandomMasker', 'ViTMasker', 'mask_statistics']
