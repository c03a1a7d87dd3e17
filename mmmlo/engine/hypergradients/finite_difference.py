"""Hypergradients by central finite differences, as in DARTS and Betty's ``darts``."""

from collections.abc import Callable, Sequence

import torch

from mmmlo.registry import HYPERGRADIENTS
from mmmlo.utils.errors import SettingError

from .base import Average, LossFunction, SecondDerivatives, Vector, dense


@HYPERGRADIENTS.register_module()
class FiniteDifference(SecondDerivatives):
    """``- (dL/du(w + eps v) - dL/du(w - eps v)) / (2 eps)`` with ``eps = alpha / |v|`` (Liu et al., 2019, DARTS).

    It needs first derivatives only, of any operation, with any kernel, and full precision. The perturbed parameters are
    copies in the parameters' own precision; the parameters are never written to, because adding, subtracting and adding
    again does not give the same bits back.

    Args:
        alpha (float): Length of the perturbation, in parameter space. Betty's ``darts``
            has 0.01. Defaults to 1e-3.
        precondition (str): See :class:`SecondDerivatives`. Defaults to 'identity'.

    Raises:
        ValueError: If ``alpha`` is not positive.
    """

    # Autocast would round the perturbed parameters to 8 bits, and the perturbation with them.
    full_precision = True

    def __init__(self, alpha: float = 1e-3, precondition: str = 'identity') -> None:
        super().__init__(precondition)
        if not alpha > 0:
            raise SettingError(f'hypergradient.alpha must be positive, got {alpha}')
        self.alpha = alpha

    def product(
        self,
        loss: LossFunction,
        lower: Sequence[torch.Tensor],
        upper: Sequence[torch.Tensor],
        vector: Vector,
        average: Average = list,
    ) -> list[torch.Tensor | None]:
        """Approximate ``- d2L/du dw . vector``; see :meth:`HypergradientEstimator.product`."""

        def gradient(values: list[torch.Tensor]) -> Sequence[torch.Tensor | None]:
            value = loss(values)
            if not value.requires_grad:
                return [None] * len(upper)
            # What both sides share, such as the masker's graph, is still needed by the other side.
            return torch.autograd.grad(value, upper, allow_unused=True, retain_graph=True)

        return [None if p is None else -p for p in self._difference(gradient, lower, vector)]

    def hessian(self, loss: LossFunction, lower: Sequence[torch.Tensor]) -> Callable[[Vector], list[torch.Tensor]]:
        """Approximate products with H; see :meth:`SecondDerivatives.hessian`."""

        def gradient(values: list[torch.Tensor]) -> Sequence[torch.Tensor | None]:
            leaves = [value.requires_grad_() for value in values]
            return torch.autograd.grad(loss(leaves), leaves, allow_unused=True)

        return lambda vector: dense(self._difference(gradient, lower, vector), lower)

    def _difference(
        self,
        gradient: Callable[[list[torch.Tensor]], Sequence[torch.Tensor | None]],
        lower: Sequence[torch.Tensor],
        vector: Vector,
    ) -> list[torch.Tensor | None]:
        """The derivative of a gradient along the vector."""
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(v) for v in vector]))
        # Along a zero vector both sides are the same, whatever eps is.
        eps = self.alpha / torch.where(norm == 0, torch.ones_like(norm), norm)
        plus, minus = (
            gradient([w.detach() + sign * eps * v.detach() for w, v in zip(lower, vector)]) for sign in (1, -1)
        )
        return [None if p is None or m is None else (p - m) / (2 * eps) for p, m in zip(plus, minus)]
