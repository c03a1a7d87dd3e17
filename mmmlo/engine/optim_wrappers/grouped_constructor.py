"""Parameters with the same settings in one group of the optimizer."""

from collections.abc import Iterable

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmmlo.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor, with one group for all parameters whose settings are the same.

    With a ``paramwise_cfg`` mmengine makes a group of every parameter. An optimizer then updates them one by one, and its
    ``foreach`` and ``fused`` kernels have nothing to put together; schedulers too go through them one by one. The result is
    the same. Only what tells groups apart by their position differs: a state of the optimizer is loaded by the constructor
    that saved it.
    """

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module: int | float | None = None
    ) -> None:
        """Add all parameters of a module; see mmengine's ``DefaultOptimWrapperConstructor``."""
        if prefix and not any(parameter.requires_grad for parameter in module.parameters()):
            return  # mmengine has a warning for each, and a teacher has hundreds
        super().add_params(params, module, prefix, is_dcn_module)
        if not prefix:  # not a child, for which mmengine calls this too
            params[:] = merge_groups(params)


def merge_groups(singles: Iterable[dict]) -> list[dict]:
    """Put parameters with the same settings into one group, in order; one that is shared belongs to its first place."""
    groups: dict[tuple, dict] = {}
    seen: set[int] = set()
    for single in singles:
        settings = tuple(sorted((name, repr(value)) for name, value in single.items() if name != 'params'))
        new = [parameter for parameter in single['params'] if id(parameter) not in seen]
        seen.update(map(id, new))
        if new:
            groups.setdefault(settings, dict(single, params=[]))['params'] += new
    return list(groups.values())
