from .mask_binarization_loss import MaskBinarizationLoss
from .mask_diversity_loss import MaskDiversityLoss
from .mask_ratio_loss import MaskRatioLoss

__all__ = ['MaskBinarizationLoss', 'MaskDiversityLoss', 'MaskRatioLoss']
