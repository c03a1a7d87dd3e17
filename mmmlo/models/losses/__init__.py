from .extra import LogDetLoss, RankingLoss, SupervisedLoss, UniformityLoss
from .mask_area_loss import MaskAreaLoss
from .mask_binarization_loss import MaskBinarizationLoss
from .mask_diversity_loss import MaskDiversityLoss
from .mask_ratio_loss import MaskRatioLoss

__all__ = [
    'LogDetLoss', 'MaskAreaLoss', 'MaskBinarizationLoss', 'MaskDiversityLoss', 'MaskRatioLoss', 'RankingLoss',
    'SupervisedLoss', 'UniformityLoss',
]
