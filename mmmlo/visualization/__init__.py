"""Pictures of training runs and of masks."""

from .curves import plot_losses, read_scalars
from .mask_statistics_hook import MaskStatisticsHook
from .masks import MaskColumn, mask_column, plot_mask_table
from .results import plot_results
from .safe_local_vis_backend import SafeLocalVisBackend

__all__ = [
    'MaskColumn',
    'MaskStatisticsHook',
    'SafeLocalVisBackend',
    'mask_column',
    'plot_losses',
    'plot_mask_table',
    'plot_results',
    'read_scalars',
]
