"""Steps that are left out because a loss or a gradient is not finite, and where the random generators stood."""

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce, get_world_size

from mmmlo.utils.errors import MmmloError

__all__ = ['FiniteSteps', 'NonFiniteError', 'random_state', 'set_random_state']


class NonFiniteError(MmmloError, RuntimeError):
    """Too many steps in a row were left out because a loss or a gradient was not finite."""


class FiniteSteps:
    """Leave out the steps of one optimizer whose losses or gradients are not finite, and count them.

    A step that is left out changes nothing: no parameter, no momentum, no weight decay. A fused optimizer of PyTorch leaves
    it out on its device, by ``found_inf``, and nothing waits for that. Any other makes each step wait for the device once.

    Attributes:
        counts (torch.Tensor): Steps left out in the run, and in a row until now; on the device.
        waits (bool): Whether the last step waited for the device, so that reading the counts costs no wait of its own. False
            before the first step.
    """

    def __init__(self, device: torch.device) -> None:
        self.counts = torch.zeros(2, dtype=torch.int64, device=device)
        self.waits = False
        self._losses: torch.Tensor | None = None
        self._marked = False

    def note(self, loss: torch.Tensor) -> None:
        """Remember, on the device, whether a loss of the coming step is finite."""
        finite = loss.detach().isfinite().all()
        self._losses = finite if self._losses is None else self._losses & finite

    def before_step(
        self, optimizer: torch.optim.Optimizer, norm: torch.Tensor, scaled: bool = False, wait: bool = False
    ) -> bool:
        """Decide on the coming step, in all processes alike, and keep the optimizer from taking one that is not finite.

        Args:
            optimizer (torch.optim.Optimizer): The optimizer, whose gradients are there.
            norm (torch.Tensor): Norm of the gradients, one or several.
            scaled (bool): Whether a loss scaler leaves the step out by itself; its losses may overflow. Defaults to False.
            wait (bool): Whether to wait for the answer in any case. Defaults to False.

        Returns:
            bool: Whether the step is known to be left out; False also where only the device knows.
        """
        finite = norm.isfinite().all()
        if self._losses is not None and not scaled:
            finite = finite & self._losses
        self._losses = None
        if get_world_size() > 1:  # gradients are averaged and so alike, but a loss is each process's own
            flag = finite.int()
            all_reduce(flag, op='min')
            finite = flag.bool()
        # Left out in the run: one more. In a row: one more, or none.
        bad = (~finite).long()
        self.counts = torch.stack([self.counts[0] + bad, (self.counts[1] + 1) * bad])
        self.waits = wait or scaled or not all(group.get('fused') for group in optimizer.param_groups)
        if not self.waits:
            optimizer.found_inf, optimizer.grad_scale = bad.float(), None  # type: ignore[attr-defined]
            self._marked = True
            return False
        if scaled or bool(finite):
            return False
        for group in optimizer.param_groups:  # an optimizer leaves parameters alone that have no gradient
            for parameter in group['params']:
                parameter.grad = None
        return True

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take back what :meth:`before_step` told the optimizer."""
        if self._marked:
            del optimizer.found_inf, optimizer.grad_scale  # type: ignore[attr-defined]
            self._marked = False

    def add(self) -> None:
        """Count a step that somebody else left out."""
        self.counts = self.counts + 1

    def read(self) -> tuple[int, int]:
        """Read the counts, of the run and in a row until now, which waits for the device."""
        count, in_a_row = self.counts.tolist()
        return count, in_a_row

    def load(self, count: int, in_a_row: int) -> None:
        """Go on counting from what :meth:`read` returned."""
        self.counts = torch.tensor([count, in_a_row], device=self.counts.device)


def random_state(device: torch.device) -> dict[str, Any]:
    """Note where Python's, NumPy's and PyTorch's generators stand, in types that a checkpoint may hold.

    Nothing waits for the device, which is the model's.
    """
    state = dict(python=random.getstate(), numpy=np.random.get_state(), cpu=torch.get_rng_state())
    if device.type == 'cuda':
        state['cuda'] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put the generators back to where :func:`random_state` found them; a device of another kind draws other numbers."""
    random.setstate(state['python'])
    np.random.set_state(state['numpy'])
    torch.set_rng_state(state['cpu'])
    if device.type == 'cuda' and 'cuda' in state:
        torch.cuda.set_rng_state(state['cuda'], device)
