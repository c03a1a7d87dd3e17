from importlib.util import find_spec

from .extra import LogDetLoss, RankingLoss, SupervisedLoss, UniformityLoss
from .mask_area_loss import MaskAreaLoss
from .mask_binarization_loss import MaskBinarizationLoss
from .mask_diversity_loss import MaskDiversityLoss
from .mask_ratio_loss import MaskRatioLoss

__all__ = [
    'LogDetLoss', 'MaskAreaLoss', 'MaskBinarizationLoss', 'MaskDiversityLoss', 'MaskRatioLoss', 'RankingLoss',
    'SupervisedLoss', 'UniformityLoss',
]

if find_spec('mmdet') is not None and find_spec('mmcv._ext') is not None:  # pretraining does without
    from .plain_focal_loss import PlainFocalLoss  # noqa: F401

    __all__ += ['PlainFocalLoss']
