"""Models whose parameters are split over processes."""

from torch import nn

SHARDING_IS_NOT_SUPPORTED = (
    "Hypergradients run a level's loss with other values in place of its parameters and with tangents beside them, so every "
    "process needs all of them: FSDP's, DeepSpeed's and Colossal-AI's strategies are not supported for any level. Use "
    "the plain Runner with model_wrapper_cfg=dict(type='mmmlo.MultiLevelDistributedDataParallel'), and for memory smaller "
    'batches with accumulative_counts, or bfloat16'
)

_SHARDED = {
    'DTensor',
    'DeepSpeedEngine',
    'FSDPModule',
    'FullyShardedDataParallel',
    'MMDeepSpeedEngineWrapper',
    'MMFullyShardedDataParallel',
}


def refuse_sharded(model: nn.Module) -> None:
    """Check that every process has whole parameters.

    Args:
        model (nn.Module): The runner's model.

    Raises:
        NotImplementedError: If a sharding wrapper or a sharded parameter is found.
    """
    kinds = {base.__name__ for part in (*model.modules(), *model.parameters()) for base in type(part).__mro__}
    found = sorted(kinds & _SHARDED)
    if found:
        raise NotImplementedError(f'the model is split over processes ({", ".join(found)}). {SHARDING_IS_NOT_SUPPORTED}')
