"""Which masking network a state holds, since other projects know one kind each."""

from collections.abc import Mapping

from torch import Tensor

__all__ = ['masker_kind', 'masker_serves_one_grid']


def masker_kind(state: Mapping[str, Tensor]) -> str | None:
    """Tell maskers apart by their weights.

    Args:
        state (Mapping[str, Tensor]): Under our names.

    Returns:
        str | None: The class, of ``ViTMasker`` with its head, as 'ViTMasker/linear'; 'another' for one that is not known,
        None if there is no masker.
    """
    keys = {key for key in state if key.startswith('masker.')}
    if not keys:
        return None
    if keys == {f'masker.layers.{i}.{p}' for i in (1, 3) for p in ('weight', 'bias')} and all(
        state[f'masker.layers.{i}.weight'].ndim == 2 for i in (1, 3)
    ):
        return 'MLPMasker'
    if 'masker.cls_token' in keys and 'masker.norm.weight' in keys:
        if 'masker.head.0.weight' in keys:
            return 'ViTMasker/mlp'
        rows = state['masker.head.weight'].shape[0] if 'masker.head.weight' in keys else 0
        return {0: 'another', 1: 'ViTMasker/token'}.get(rows, 'ViTMasker/linear')
    return 'another'


def masker_serves_one_grid(kind: str | None) -> bool:
    """Whether a masker has an output for each patch of one grid, and so cannot be resized."""
    return kind in ('MLPMasker', 'ViTMasker/mlp', 'ViTMasker/linear')
