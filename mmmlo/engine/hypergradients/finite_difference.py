"""Hypergradients by central finite differences, as in DARTS and Betty's ``darts``."""

import torch

from mmmlo.registry import HYPERGRADIENTS
from mmmlo.utils.errors import SettingError

from .base import Average, HypergradientEstimator, LossFunction, Products, Vector


@HYPERGRADIENTS.register_module()
class FiniteDifference(HypergradientEstimator):
    """``- (dL/du(w + eps v) - dL/du(w - eps v)) / (2 eps)`` with ``eps = alpha / |v|`` (Liu et al., 2019, DARTS).

    It needs first derivatives only, of any operation, with any kernel, and full precision. The perturbed parameters are
    copies in the parameters' own precision; the parameters are never written to, because adding, subtracting and adding
    again does not give the same bits back.

    Args:
        alpha (float): Length of the perturbation, in parameter space. Betty's ``darts`` has 0.01. Defaults to 1e-3.
        precondition (str): See :class:`HypergradientEstimator`. Defaults to 'identity'.

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
        self, loss: LossFunction, lower: Vector, upper: Vector, vector: Vector, average: Average = list
    ) -> Products:
        """Approximate ``- d2L/du dw . vector``; see :meth:`HypergradientEstimator.product`."""
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(v) for v in vector]))
        # Along a zero vector both sides are the same, whatever eps is.
        eps = self.alpha / torch.where(norm == 0, torch.ones_like(norm), norm)

        def gradient(sign: int) -> Products:
            value = loss([w.detach() + sign * eps * v.detach() for w, v in zip(lower, vector)])
            if not value.requires_grad:
                return [None] * len(upper)
            # What both sides share, such as the masker's graph, is still needed by the other side.
            return list(torch.autograd.grad(value, upper, allow_unused=True, retain_graph=True))

        return [None if p is None or m is None else -((p - m) / (2 * eps)) for p, m in zip(gradient(1), gradient(-1))]
