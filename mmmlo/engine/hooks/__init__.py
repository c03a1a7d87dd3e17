from .backbone_ema_hook import BackboneEMAHook
from .curriculum_hook import CurriculumHook, curriculum_factor
from .deferred_runtime_info_hook import DeferredRuntimeInfoHook
from .level_param_scheduler_hook import LevelParamSchedulerHook
from .mask_statistics_hook import MaskStatisticsHook
from .non_finite_guard_hook import NonFiniteGuardHook
from .prediction_picture_hook import PredictionPictureHook
from .rank_seed_hook import RankSeedHook
from .verify_pretrained_hook import VerifyPretrainedHook

__all__ = [
    'BackboneEMAHook', 'CurriculumHook', 'DeferredRuntimeInfoHook', 'LevelParamSchedulerHook', 'MaskStatisticsHook',
    'NonFiniteGuardHook', 'PredictionPictureHook', 'RankSeedHook', 'VerifyPretrainedHook', 'curriculum_factor'
]
