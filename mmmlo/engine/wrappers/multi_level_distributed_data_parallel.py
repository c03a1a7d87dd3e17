"""The model on several processes."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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

    def __init__(self, optim_wrapper: OptimWrapper, model: 'MultiLevelDistributedDataParallel') -> None:
        self._optim_wrapper = optim_wrapper
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optim_wrapper, name)

    def optim_context(self, model: nn.Module) -> Any:
        return self._optim_wrapper.optim_context(self._model)

    def backward(self, loss: torch.Tensor, **kwargs) -> None:
        sync = self._model.synchronized and self._optim_wrapper.should_sync()
        with self._model.reducer.overlapped() if sync else nullcontext():
            self._optim_wrapper.backward(loss, **kwargs)

    def step(self, **kwargs) -> None:
        if self._model.synchronized:
            self._model.reducer.finish()
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
        bucket_cap_mb (float): Size of a bucket in MiB, for ordinary optimizer wrappers. Defaults to 25.
    """

    def __init__(self, module: nn.Module, bucket_cap_mb: float = 25.0) -> None:
        super().__init__()
        self.module: Any = module
        self.bucket_cap_mb = bucket_cap_mb
        self.synchronized = True
        self._reducer: GradientReducer | None = None
        self.broadcast_state()

    @property
    def reducer(self) -> GradientReducer:
        """GradientReducer: Of all trainable parameters; for ordinary optimizer wrappers."""
        if self._reducer is None:
            parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
            self._reducer = GradientReducer(parameters, type(self.module).__name__, self.bucket_cap_mb)
        return self._reducer

    @torch.no_grad()
    def broadcast_state(self) -> None:
        """Give every process the parameters and buffers of the first one."""
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            broadcast(tensor.data)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Do not average the gradients of an ordinary optimizer wrapper inside."""
        before, self.synchronized = self.synchronized, False
        try:
            yield
        finally:
            self.synchronized = before

    def forward(self, *args, **kwargs) -> Any:
        """Run the model."""
        return self.module(*args, **kwargs)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Any]:
        """Run the model's own ``train_step``.

        Args:
            data (Any): What the training loop hands over.
            optim_wrapper (OptimWrapper): A wrapper of one optimizer.

        Returns:
            dict[str, Any]: What to log.
        """
        return self.module.train_step(data, _AveragingOptimWrapper(optim_wrapper, self))

    def val_step(self, data: Any) -> Any:
        """Run the model's own ``val_step``."""
        return self.module.val_step(data)

    def test_step(self, data: Any) -> Any:
        """Run the model's own ``test_step``."""
        return self.module.test_step(data)


def check_model_wrapper(model: nn.Module) -> None:
    """Check that a model with several levels is in a wrapper that trains them.

    Args:
        model (nn.Module): The runner's model.

    Raises:
        RuntimeError: If its wrapper would train one loss.
    """
    if is_model_wrapper(model) and not isinstance(model, MultiLevelDistributedDataParallel):
        levels = getattr(getattr(model, 'module', model), 'level_modules', {})
        if len(levels) > 1:
            raise UnsupportedError(
                f'the model has the levels {list(levels)} and is wrapped in {type(model).__name__}, which trains one loss '
                "and never calls the model's own train_step: it would silently train something else. Set "
                "model_wrapper_cfg=dict(type='mmmlo.MultiLevelDistributedDataParallel')"
            )
