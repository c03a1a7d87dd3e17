"""The model on several processes."""

from contextlib import nullcontext
from functools import cached_property
from typing import Any

import torch
from mmengine.dist import broadcast
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import nn

from mmmlo.registry import MODEL_WRAPPERS
from mmmlo.utils.errors import UnsupportedError

from ..reduce import GradientReducer


class _AveragingOptimWrapper:
    """An optimizer wrapper whose gradients are averaged over processes before it steps; all else is the wrapper's own."""

    def __init__(self, optim_wrapper: OptimWrapper, reducer: GradientReducer) -> None:
        self._optim_wrapper, self._reducer = optim_wrapper, reducer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optim_wrapper, name)

    def backward(self, loss: torch.Tensor, **kwargs) -> None:
        with self._reducer.overlapped() if self._optim_wrapper.should_sync() else nullcontext():
            self._optim_wrapper.backward(loss, **kwargs)

    def step(self, **kwargs) -> None:
        self._reducer.finish()
        self._optim_wrapper.step(**kwargs)

    def update_params(self, *args, **kwargs) -> None:
        # The wrapper's own, which calls the two above.
        type(self._optim_wrapper).update_params(self, *args, **kwargs)  # type: ignore[arg-type]


@MODEL_WRAPPERS.register_module()
class MultiLevelDistributedDataParallel(nn.Module):
    """Data parallelism for models that train several levels, and for those that train one; on GPUs and CPUs.

    mmengine's ``MMDistributedDataParallel`` knows one loss, and is handed device numbers on CPUs, which PyTorch refuses.
    Gradients and vectors of levels are averaged by :class:`mmmlo.engine.MultiLevelOptimWrapper`; with an ordinary optimizer
    wrapper they are averaged here, in buckets during the backward pass, around the model's own ``train_step``.

    Put it in a config as ``model_wrapper_cfg=dict(type='mmmlo.MultiLevelDistributedDataParallel')``.

    Args:
        module (nn.Module): The model, on its device.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module: Any = module
        self.broadcast_state()

    @cached_property
    def reducer(self) -> GradientReducer:
        """GradientReducer: Of all trainable parameters; for ordinary optimizer wrappers."""
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        return GradientReducer(parameters, type(self.module).__name__)

    @torch.no_grad()
    def broadcast_state(self) -> None:
        """Give every process the parameters and buffers of the first one."""
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            broadcast(tensor.data)

    def forward(self, *args, **kwargs) -> Any:
        """Run the model."""
        return self.module(*args, **kwargs)

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Any]:
        """Run the model's own ``train_step``, and average its gradients."""
        return self.module.train_step(data, _AveragingOptimWrapper(optim_wrapper, self.reducer))

    def val_step(self, data: Any) -> Any:
        """Run the model's own ``val_step``."""
        return self.module.val_step(data)

    def test_step(self, data: Any) -> Any:
        """Run the model's own ``test_step``."""
        return self.module.test_step(data)


def check_model_wrapper(model: nn.Module) -> None:
    """Raise a RuntimeError if a model with several levels is in a wrapper that would train one loss."""
    if is_model_wrapper(model) and not isinstance(model, MultiLevelDistributedDataParallel):
        levels = getattr(model.module, 'level_modules', {})
        if len(levels) > 1:
            raise UnsupportedError(
                f'the model has the levels {list(levels)} and is wrapped in {type(model).__name__}, which trains one loss '
                "and never calls the model's own train_step: it would silently train something else. Set "
                "model_wrapper_cfg=dict(type='mmmlo.MultiLevelDistributedDataParallel')"
            )
