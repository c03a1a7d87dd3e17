"""Inverse Hessian by conjugate gradients."""

import logging
from collections.abc import Callable

import torch
from mmengine.logging import print_log

from mmmlo.registry import HYPERGRADIENTS
from mmmlo.utils.errors import SettingError

from .base import Average, SecondDerivatives, Vector
from .inverse_hessian import InverseHessian, inner


@HYPERGRADIENTS.register_module()
class ConjugateGradient(InverseHessian):
    """Solves ``(H + damping) x = v`` by conjugate gradients (Rajeswaran et al., 2019, iMAML, section 3).

    Exact after as many steps as H + damping has distinct eigenvalues, if it is positive definite. Where it meets negative
    curvature, which the Hessian of a network has, it stops at what it has found until then (truncated conjugate
    gradients) and says so once: a larger damping helps. On GPUs each step waits for the device, to look at the curvature.

    Args:
        steps (int): The most products with H. Defaults to 10.
        damping (float): Added to the diagonal of H. Defaults to 0.
        tolerance (float): Residual, relative to the vector, at which to stop early. Defaults to 1e-10.
        products (dict | SecondDerivatives, optional): See :class:`InverseHessian`.

    Raises:
        ValueError: If ``steps`` is not positive or ``damping`` is negative.
    """

    def __init__(
        self,
        steps: int = 10,
        damping: float = 0.0,
        tolerance: float = 1e-10,
        products: dict | SecondDerivatives | None = None,
    ) -> None:
        super().__init__(products)
        if steps < 1:
            raise SettingError(f'hypergradient.steps must be at least 1, got {steps}')
        if damping < 0:
            raise SettingError(f'hypergradient.damping must not be negative, got {damping}')
        self.steps, self.damping, self.tolerance = steps, damping, tolerance
        self._warned = False

    def solve(
        self, hessian: Callable[[Vector], list[torch.Tensor]], vector: Vector, average: Average = list
    ) -> list[torch.Tensor]:
        """Run the iteration; see :meth:`InverseHessian.solve`."""
        solution = [torch.zeros_like(v) for v in vector]
        residual = direction = list(vector)
        (square,) = average([inner(residual, residual)])
        goal = self.tolerance**2 * square
        for step in range(self.steps):
            if square <= goal:  # also a zero vector
                break
            image = [h + self.damping * d for h, d in zip(hessian(direction), direction)]
            (curvature,) = average([inner(direction, image)])
            if curvature <= 0:
                self._warn(step)
                # Without a single step there is nothing but the direction itself: the identity's answer.
                return solution if step else list(vector)
            length = square / curvature
            solution = [x + length * d for x, d in zip(solution, direction)]
            residual = [r - length * i for r, i in zip(residual, image)]
            previous, (square,) = square, average([inner(residual, residual)])
            direction = [r + square / previous * d for r, d in zip(residual, direction)]
        return solution

    def _warn(self, step: int) -> None:
        if not self._warned:
            print_log(
                f'ConjugateGradient met negative curvature in step {step + 1} of {self.steps} and stops there; raise '
                f'hypergradient.damping={self.damping} to let it go on (said once)',
                'current',
                logging.WARNING,
            )
            self._warned = True
