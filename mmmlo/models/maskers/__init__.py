from .attention import AttentionMasker
from .base import BaseMasker
from .block import BlockMasker, GridMasker
from .color import ColorMasker
from .contrast import ContrastMasker
from .controls import FrozenMasker, PermutedMasker, PositionMasker
from .conv import ConvMasker
from .mlp import MLPMasker
from .random import RandomMasker
from .statistics import mask_statistics, score_correlations, visible_overlap
from .teacher import PredictedLossMasker, TeacherLossMasker, TeacherMasker
from .vit import ViTMasker

__all__ = [
    'AttentionMasker', 'BaseMasker', 'BlockMasker', 'ColorMasker', 'ContrastMasker', 'ConvMasker', 'FrozenMasker',
    'GridMasker', 'MLPMasker', 'PermutedMasker', 'PositionMasker', 'PredictedLossMasker', 'RandomMasker',
    'TeacherLossMasker', 'TeacherMasker', 'ViTMasker', 'mask_statistics', 'score_correlations', 'visible_overlap',
]
