from .base import BaseMasker
from .conv import ConvMasker
from .mlp import MLPMasker
from .random import RandomMasker
from .selection import PatchSelection, select_patches
from .statistics import mask_statistics
from .vit import ViTMasker

__all__ = [
    'BaseMasker',
    'ConvMasker',
    'MLPMasker',
    'PatchSelection',
    'RandomMasker',
    'ViTMasker',
    'mask_statistics',
    'select_patches',
]
