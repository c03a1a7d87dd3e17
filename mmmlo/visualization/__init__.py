"""Pictures of training runs and of masks."""

from .losses import plot_losses, read_scalars
from .masks import plot_masks

__all__ = ['plot_losses', 'plot_masks', 'read_scalars']
