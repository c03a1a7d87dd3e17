from .attention import AttentionMasker
from .base import BaseMasker, mask_statistics
from .contrast import ContrastMasker
from .conv import ConvMasker
from .mlp import MLPMasker
from .random import RandomMasker
from .vit import ViTMasker

__all__ = [
    'AttentionMasker', 'BaseMasker', 'ContrastMasker', 'ConvMasker', 'MLPMasker', 'RandomMasker', 'ViTMasker',
    'mask_statistics',
]
