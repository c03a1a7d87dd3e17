"""bfloat16 autocast on any device."""

from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from mmmlo.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """``OptimWrapper`` that runs the forward pass in bfloat16 where autocast says so; parameters stay fp32.

    mmengine's ``AmpOptimWrapper`` refuses CPUs and scales losses by default, which bfloat16 does not need: its exponent
    has fp32's range. A loss scale would also end up in the hypergradients.
    """

    @contextmanager
    def optim_context(self, model: nn.Module):
        """Autocast to bfloat16, and skip gradient synchronization while accumulating."""
        with super().optim_context(model), torch.autocast(get_device().split(':')[0], dtype=torch.bfloat16):
            yield
