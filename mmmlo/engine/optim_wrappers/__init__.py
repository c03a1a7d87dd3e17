from .bfloat16_optim_wrapper import BFloat16OptimWrapper
from .cadence import Cadence
from .constructor import MultiLevelOptimWrapperConstructor
from .multi_level_optim_wrapper import MultiLevelOptimWrapper, NonFiniteHypergradientError

__all__ = [
    'BFloat16OptimWrapper', 'Cadence', 'MultiLevelOptimWrapper', 'MultiLevelOptimWrapperConstructor',
    'NonFiniteHypergradientError'
]
