"""Hypergradients by central finite differences, as in DARTS and Betty's ``darts``."""

from collections.abc import Sequence

import torch

from mmmlo.registry import HYPERGRADIENTS

from .base import HypergradientEstimator, LossFunction


@HYPERGRADIENTS.register_module()
class FiniteDifference(HypergradientEstimator):
    """``- (dL/du(w + eps v) - dL/du(w - eps v)) / (2 eps)`` with ``eps = alpha / |v|`` (Liu et al., 2019, DARTS).

    The perturbed parameters are copies in the parameters' own precision; the parameters are never written to, because
    adding, subtracting and adding again does not give the same bits back.

    Args:
        alpha (float): Length of the perturbation, in parameter space. Betty's ``darts``
            has 0.01. Defaults to 1e-3.

    Raises:
        ValueError: If ``alpha`` is not positive.
    """

    # Autocast would round the perturbed parameters to 8 bits, and the perturbation with them.
    full_precision = True

    def __init__(self, alpha: float = 1e-3) -> None:
        if not alpha > 0:
            raise ValueError(f'hypergradient.alpha must be positive, got {alpha}')
        self.alpha = alpha

    def product(
        self,
        loss: LossFunction,
        lower: Sequence[torch.Tensor],
        upper: Sequence[torch.Tensor],
        vector: Sequence[torch.Tensor],
    ) -> list[torch.Tensor | None]:
        """Approximate ``- d2L/du dw . vector``; see :meth:`HypergradientEstimator.product`."""
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(v) for v in vector]))
        if norm == 0:
            return [None] * len(upper)
        eps = self.alpha / norm
        sides = []
        for sign in (1, -1):
            perturbed = [w.detach() + sign * eps * v.detach() for w, v in zip(lower, vector)]
            value = loss(perturbed)
            # What both sides share, such as the masker's graph, is still needed by the other side.
            gradients = (
                torch.autograd.grad(value, upper, allow_unused=True, retain_graph=True)
                if value.requires_grad
                else [None] * len(upper)
            )
            sides.append(gradients)
        return [None if plus is None else (minus - plus) / (2 * eps) for plus, minus in zip(*sides)]
