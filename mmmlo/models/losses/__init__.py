from .extra import LogDetLoss, SupervisedLoss, UniformityLoss
from .mask_binarization_loss import MaskBinarizationLoss
from .mask_diversity_loss import MaskDiversityLoss
from .mask_ratio_loss import MaskRatioLoss

__all__ = [
    'LogDetLoss', 'MaskBinarizationLoss', 'MaskDiversityLoss', 'MaskRatioLoss', 'SupervisedLoss', 'UniformityLoss'
]
