from .level_param_scheduler_hook import LevelParamSchedulerHook
from .mask_statistics_hook import MaskStatisticsHook

__all__ = ['LevelParamSchedulerHook', 'MaskStatisticsHook']
