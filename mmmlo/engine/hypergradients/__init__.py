from .base import HypergradientEstimator, LossFunction
from .finite_difference import FiniteDifference
from .forward_mode import ForwardMode
from .paths import LevelGraph

__all__ = ['FiniteDifference', 'ForwardMode', 'HypergradientEstimator', 'LevelGraph', 'LossFunction']
