"""Inverse Hessian by a Neumann series."""

from collections.abc import Callable

import torch

from mmmlo.registry import HYPERGRADIENTS
from mmmlo.utils.errors import SettingError

from .base import Average, SecondDerivatives, Vector
from .inverse_hessian import InverseHessian


@HYPERGRADIENTS.register_module()
class Neumann(InverseHessian):
    """``H^-1 v = lr * sum over k < terms of (1 - lr H)^k v`` (Lorraine et al., 2020, section 4).

    It is what unrolling so many steps of gradient descent at that learning rate comes to, and converges to the exact
    solution with more terms if ``lr`` is below 2 over the largest eigenvalue of a positive definite H. Otherwise it grows
    without bounds; non-finite hypergradients are skipped and end the run, see :class:`mmmlo.engine.MultiLevelOptimWrapper`.

    Args:
        terms (int): Terms of the series; 1 is ``lr * v``. Each further one costs a product with H. Defaults to 5.
        lr (float): The learning rate. Defaults to 0.01.
        products (dict | SecondDerivatives, optional): See :class:`InverseHessian`.

    Raises:
        ValueError: If ``terms`` or ``lr`` is not positive.
    """

    def __init__(self, terms: int = 5, lr: float = 0.01, products: dict | SecondDerivatives | None = None) -> None:
        super().__init__(products)
        if terms < 1:
            raise SettingError(f'hypergradient.terms must be at least 1, got {terms}')
        if not lr > 0:
            raise SettingError(f'hypergradient.lr must be positive, got {lr}')
        self.terms, self.lr = terms, lr

    def solve(
        self, hessian: Callable[[Vector], list[torch.Tensor]], vector: Vector, average: Average = list
    ) -> list[torch.Tensor]:
        """Sum the series; see :meth:`InverseHessian.solve`."""
        term = total = [self.lr * v for v in vector]
        for _ in range(self.terms - 1):
            term = [t - self.lr * h for t, h in zip(term, hessian(term))]
            total = [a + t for a, t in zip(total, term)]
        return total
