from .attention import AttentionMasker
from .base import BaseMasker
from .contrast import ContrastMasker
from .conv import ConvMasker
from .mlp import MLPMasker
from .random import RandomMasker
from .statistics import mask_statistics, score_correlations, visible_overlap
from .vit import ViTMasker

__all__ = [
    'AttentionMasker', 'BaseMasker', 'ContrastMasker', 'ConvMasker', 'MLPMasker', 'RandomMasker', 'ViTMasker',
    'mask_statistics', 'score_correlations', 'visible_overlap',
]
