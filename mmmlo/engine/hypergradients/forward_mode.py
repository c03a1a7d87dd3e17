"""Exact hypergradients by one forward-mode and one reverse-mode pass."""

import torch
from torch.autograd import forward_ad

from mmmlo.registry import HYPERGRADIENTS

from .base import Average, HypergradientEstimator, LossFunction, Products, Vector
from .dual_rules import DualRules
from .not_differentiable import explained


@HYPERGRADIENTS.register_module()
class ForwardMode(HypergradientEstimator):
    """Compute ``- d/du <dL/dw, v>``: a forward-mode product along v, then reverse mode through what depends on u.

    Exact. The lower parameters enter without a graph, so the reverse pass runs only through what the upper parameters
    reach. For MLO-MAE's masker, on which the loss depends through the weights alone, that is the masker itself:
    ``- d/dT sum(mask * p(T) * (dl/dE . v)) / sum(mask)``, one forward-mode pass of encoder and decoder, nothing recorded.

    It needs a forward-mode rule for every operation on the way from w, and switches attention to the plain kernel and
    layer norm to elementary operations where tangents flow. Everything else keeps its fast kernels.

    Args:
        precondition (str): See :class:`HypergradientEstimator`. Defaults to 'identity'.
    """

    def product(
        self, loss: LossFunction, lower: Vector, upper: Vector, vector: Vector, average: Average = list
    ) -> Products:
        """Compute ``- d2L/du dw . vector``; see :meth:`HypergradientEstimator.product`."""
        with explained(self, forward_mode, loss, lower):
            return forward_mode(loss, lower, upper, vector)


def forward_mode(loss: LossFunction, lower: Vector, upper: Vector, vector: Vector) -> Products:
    tangent = directional_derivative(loss, lower, vector)
    if tangent is None or not tangent.requires_grad:
        return [None] * len(upper)
    return [None if p is None else -p for p in torch.autograd.grad(tangent, upper, allow_unused=True)]


def directional_derivative(loss: LossFunction, lower: Vector, vector: Vector) -> torch.Tensor | None:
    """Compute dL/dw . v, with the graphs to whatever else L depends on; None if it does not depend on w. L is any tensor."""
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(w.detach(), v.detach()) for w, v in zip(lower, vector)]
        with DualRules():
            value = loss(duals)
        return forward_ad.unpack_dual(value).tangent
