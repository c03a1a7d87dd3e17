"""Exact hypergradients by one forward-mode and one reverse-mode pass."""

from collections.abc import Callable, Sequence

import torch
from torch.autograd import forward_ad

from mmmlo.registry import HYPERGRADIENTS

from .base import Average, LossFunction, SecondDerivatives, Vector, dense
from .dual_rules import DualRules
from .not_differentiable import explained


def _directional_derivative(loss: LossFunction, lower: Sequence[torch.Tensor], vector: Vector) -> torch.Tensor | None:
    """dL/dw . v, with the graphs to whatever else the loss depends on; None if it does not depend on w."""
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(w, v.detach()) for w, v in zip(lower, vector)]
        with DualRules():
            value = loss(duals)
        return forward_ad.unpack_dual(value).tangent


def _probe(function: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> None:
    leaves = [value.detach().requires_grad_() for value in inputs]
    ones = [torch.ones_like(value) for value in inputs]
    derivative = _directional_derivative(lambda values: function(*values), leaves, ones)
    if derivative is not None and derivative.requires_grad:
        torch.autograd.grad(derivative, leaves, allow_unused=True)


@HYPERGRADIENTS.register_module()
class ForwardMode(SecondDerivatives):
    """Compute ``- d/du <dL/dw, v>``: a forward-mode product along v, then reverse mode through what depends on u.

    Exact. The lower parameters enter without a graph, so the reverse pass runs only through what the upper parameters
    reach. For MLO-MAE's masker, on which the loss depends through the weights alone, that is the masker itself:
    ``- d/dT sum(mask * p(T) * (dl/dE . v)) / sum(mask)``, one forward-mode pass of encoder and decoder, nothing recorded.

    It needs a forward-mode rule for every operation on the way from w, and switches attention to the plain kernel and
    layer norm to elementary operations where tangents flow. Everything else keeps its fast kernels.

    Args:
        precondition (str): See :class:`SecondDerivatives`. Defaults to 'identity'.
    """

    def product(
        self,
        loss: LossFunction,
        lower: Sequence[torch.Tensor],
        upper: Sequence[torch.Tensor],
        vector: Vector,
        average: Average = list,
    ) -> list[torch.Tensor | None]:
        """Compute ``- d2L/du dw . vector``; see :meth:`HypergradientEstimator.product`."""
        with explained(type(self).__name__, loss, lower, _probe):
            tangent = _directional_derivative(loss, [w.detach() for w in lower], vector)
            if tangent is None or not tangent.requires_grad:
                return [None] * len(upper)
            products = torch.autograd.grad(tangent, upper, allow_unused=True)
        return [None if p is None else -p for p in products]

    def hessian(self, loss: LossFunction, lower: Sequence[torch.Tensor]) -> Callable[[Vector], list[torch.Tensor]]:
        """Products with H, a pass each; see :meth:`SecondDerivatives.hessian`."""

        def times(vector: Vector) -> list[torch.Tensor]:
            leaves = [w.detach().requires_grad_() for w in lower]
            with explained(type(self).__name__, loss, lower, _probe):
                tangent = _directional_derivative(loss, leaves, vector)
                if tangent is None or not tangent.requires_grad:
                    return dense([None] * len(leaves), leaves)
                products = torch.autograd.grad(tangent, leaves, allow_unused=True)
            return dense(products, leaves)

        return times
