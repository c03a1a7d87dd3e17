from .attention import AttentionMasker
from .attention_map import AttentionMapMasker
from .base import BaseMasker
from .block import BlockMasker, GridMasker
from .class_attention import ClassAttentionMasker
from .color import ColorMasker
from .contrast import ContrastMasker
from .controls import FrozenMasker, PermutedMasker, PositionMasker
from .conv import ConvMasker
from .mlp import MLPMasker
from .random import RandomMasker
from .statistics import mask_statistics, score_correlations, visible_overlap
from .teacher import HardnessMasker, PredictedLossMasker, TeacherLossMasker, TeacherMasker
from .unet import UNetMasker
from .vit import ViTMasker

__all__ = [
    'AttentionMapMasker', 'AttentionMasker', 'BaseMasker', 'BlockMasker', 'ClassAttentionMasker', 'ColorMasker',
    'ContrastMasker', 'ConvMasker', 'FrozenMasker', 'GridMasker', 'HardnessMasker', 'MLPMasker', 'PermutedMasker',
    'PositionMasker', 'PredictedLossMasker', 'RandomMasker', 'TeacherLossMasker', 'TeacherMasker', 'UNetMasker',
    'ViTMasker', 'mask_statistics', 'score_correlations', 'visible_overlap',
]
