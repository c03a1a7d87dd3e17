from .bfloat16_optim_wrapper import BFloat16OptimWrapper
from .cadence import Cadence
from .constructor import MultiLevelOptimWrapperConstructor
from .grouped_constructor import GroupedOptimWrapperConstructor
from .layer_decay_constructor import LayerDecayOptimWrapperConstructor
from .multi_level_optim_wrapper import MultiLevelOptimWrapper

__all__ = [
    'BFloat16OptimWrapper', 'Cadence', 'GroupedOptimWrapperConstructor', 'LayerDecayOptimWrapperConstructor',
    'MultiLevelOptimWrapper', 'MultiLevelOptimWrapperConstructor'
]
