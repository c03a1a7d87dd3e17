from .compile_hook import CompileHook, compile_blocks
from .curriculum_hook import CurriculumHook, curriculum_factor
from .deferred_runtime_info_hook import DeferredRuntimeInfoHook
from .level_param_scheduler_hook import LevelParamSchedulerHook
from .level_start_hook import LevelStartHook
from .non_finite_guard_hook import NonFiniteGuardHook
from .prediction_picture_hook import PredictionPictureHook
from .progress_hook import ProgressHook
from .provenance_hook import ProvenanceHook
from .rank_seed_hook import RankSeedHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .schedule_hook import BaseScheduleHook, ScheduleHook, set_number
from .stop_signal_hook import StopSignalHook
from .teacher_hook import TeacherHook
from .worth_statistics_hook import WorthStatisticsHook, worth_statistics

__all__ = [
    'BaseScheduleHook', 'CompileHook', 'CurriculumHook', 'DeferredRuntimeInfoHook', 'LevelParamSchedulerHook',
    'LevelStartHook', 'NonFiniteGuardHook', 'PredictionPictureHook', 'ProgressHook', 'ProvenanceHook', 'RankSeedHook',
    'SafeCheckpointHook', 'ScheduleHook', 'StopSignalHook', 'TeacherHook', 'WorthStatisticsHook',
    'compile_blocks', 'curriculum_factor', 'set_number', 'worth_statistics'
]
