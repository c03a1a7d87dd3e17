"""Models whose parameters are split over processes."""

import torch
from torch import nn

from mmmlo.utils.errors import UnsupportedError

SHARDING_IS_NOT_SUPPORTED = (
    "Hypergradients run a level's loss with other values in place of its parameters and with tangents beside them, so every "
    "process needs all of them: FSDP's, DeepSpeed's and Colossal-AI's strategies are not supported for any level. Use "
    "the plain Runner with model_wrapper_cfg=dict(type='mmmlo.MultiLevelDistributedDataParallel'), and for memory smaller "
    'batches with accumulative_counts, or bfloat16'
)

_SHARDED = {
    'DTensor', 'DeepSpeedEngine', 'FSDPModule', 'FullyShardedDataParallel', 'MMDeepSpeedEngineWrapper',
    'MMFullyShardedDataParallel'
}


def check_not_sharded(model: nn.Module) -> None:
    """Check that every process has whole parameters.

    Raises:
        NotImplementedError: If a sharding wrapper or a sharded parameter is found.
    """
    kinds = {base.__name__ for part in (*model.modules(), *model.parameters()) for base in type(part).__mro__}
    found = sorted(kinds & _SHARDED)
    if found:
        raise UnsupportedError(f'the model is split over processes ({", ".join(found)}). {SHARDING_IS_NOT_SUPPORTED}')


def check_optimizer_not_sharded(level: str, optimizer: torch.optim.Optimizer) -> None:
    """Check that every process has the whole state of a level's optimizer.

    Raises:
        NotImplementedError: If the state is split over processes.
    """
    if any(base.__name__ == 'ZeroRedundancyOptimizer' for base in type(optimizer).__mro__):
        raise UnsupportedError(
            f'optim_wrapper.levels.{level}.optimizer is a ZeroRedundancyOptimizer, whose state all processes gather '
            'together, but mmengine saves checkpoints on the first process alone: the run would hang there. Use the '
            'optimizer itself'
        )
