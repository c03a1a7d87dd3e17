"""Estimators that solve a linear system with the Hessian of the lower level's loss."""

import logging
from abc import abstractmethod
from collections.abc import Callable

import torch
from mmengine.logging import print_log

from mmmlo.registry import HYPERGRADIENTS
from mmmlo.utils.errors import SettingError

from .base import Average, HypergradientEstimator, LossFunction, Products, Vector
from .double_backward import double_backward, gradient_graph
from .forward_mode import forward_mode
from .gauss_newton import gauss_newton
from .not_differentiable import explained

Times = Callable[[Vector], list[torch.Tensor]]


MATRICES = ('hessian', 'gauss_newton')


class InverseHessian(HypergradientEstimator):
    """Solves H x = v, then carries x as the identity's estimator does.

    Everything runs in full precision: a linear system is solved to more digits than autocast keeps.

    Args:
        matrix (str): H: 'hessian', all products by double backward; or 'gauss_newton', of a loss that is a sum of squares,
            which is never negative and needs no double backward, see :func:`gauss_newton`. Defaults to 'hessian'.

    Raises:
        SettingError: The matrix is none of these, or the level's loss no sum of squares.
    """

    full_precision = True

    def __init__(self, matrix: str = 'hessian') -> None:
        super().__init__()
        if matrix not in MATRICES:
            raise SettingError(f'hypergradient.matrix must be one of {MATRICES}, got {matrix!r}')
        self.matrix = matrix

    @abstractmethod
    def solve(self, hessian: Times, vector: Vector, average: Average) -> list[torch.Tensor]:
        """Approximate ``H^-1 . vector``.

        Args:
            hessian (Callable): A vector -> H times the vector, averaged over processes.
            vector (Vector): The right-hand side.
            average (Average): Averages what a decision hangs on: processes, whose numbers are the same up to rounding, must
                not decide differently, or one would wait for the others for ever.
        """

    def product(
        self, loss: LossFunction, lower: Vector, upper: Vector, vector: Vector, average: Average = list
    ) -> Products:
        """Compute ``- d2L/du dw . H^-1 . vector``; see :meth:`HypergradientEstimator.product`."""
        right = [v.detach() for v in vector]
        if self.matrix == 'gauss_newton':
            with explained(self, forward_mode, loss, lower):
                times = gauss_newton(loss, lower)
                solution = self.solve(lambda direction: average(times(direction)), right, average)
                return forward_mode(loss, lower, upper, solution)
        with explained(self, double_backward, loss, lower):
            leaves, differentiate = gradient_graph(loss, lower)

            def hessian(direction: Vector) -> list[torch.Tensor]:
                products = differentiate(leaves, direction, retain_graph=True)
                return average([torch.zeros_like(w) if p is None else p for p, w in zip(products, leaves)])

            solution = self.solve(hessian, right, average)
            return [None if p is None else -p for p in differentiate(upper, solution)]


@HYPERGRADIENTS.register_module()
class Neumann(InverseHessian):
    """``H^-1 v = lr * sum over k < terms of (1 - lr H)^k v`` (Lorraine et al., 2020, section 4).

    It is what unrolling so many steps of gradient descent at that learning rate comes to, and converges to the exact
    solution with more terms if ``lr`` is below 2 over the largest eigenvalue of a positive definite H. Otherwise it grows
    without bounds; non-finite hypergradients are skipped and end the run, see :class:`mmmlo.engine.MultiLevelOptimWrapper`.

    Args:
        terms (int): Terms of the series; 1 is ``lr * v``. Each further one costs a product with H. Defaults to 5.
        lr (float): The learning rate. Defaults to 0.01.
        matrix (str): See :class:`InverseHessian`. Defaults to 'hessian'.

    Raises:
        ValueError: If ``terms`` or ``lr`` is not positive.
    """

    def __init__(self, terms: int = 5, lr: float = 0.01, matrix: str = 'hessian') -> None:
        super().__init__(matrix)
        if terms < 1:
            raise SettingError(f'hypergradient.terms must be at least 1, got {terms}')
        if not lr > 0:
            raise SettingError(f'hypergradient.lr must be positive, got {lr}')
        self.terms, self.lr = terms, lr

    def solve(self, hessian: Times, vector: Vector, average: Average) -> list[torch.Tensor]:
        """Sum the series; see :meth:`InverseHessian.solve`."""
        term = total = [self.lr * v for v in vector]
        for _ in range(self.terms - 1):
            term = [t - self.lr * h for t, h in zip(term, hessian(term))]
            total = [a + t for a, t in zip(total, term)]
        return total


@HYPERGRADIENTS.register_module()
class ConjugateGradient(InverseHessian):
    """Solves ``(H + damping) x = v`` by conjugate gradients (Rajeswaran et al., 2019, iMAML, section 3).

    Exact after as many steps as H + damping has distinct eigenvalues, if it is positive definite. Where it meets negative
    curvature, which the Hessian of a network has, it stops at what it has found until then (truncated conjugate
    gradients) and says so once: a larger damping helps, or the Gauss-Newton matrix. On GPUs each step waits for the device,
    to look at the curvature.

    Args:
        steps (int): The most products with H. Defaults to 10.
        damping (float): Added to the diagonal of H. Defaults to 0.
        tolerance (float): Residual, relative to the vector, at which to stop early. Defaults to 1e-10.
        matrix (str): See :class:`InverseHessian`. Defaults to 'hessian'.

    Raises:
        ValueError: If ``steps`` is not positive or ``damping`` is negative.
    """

    def __init__(
        self, steps: int = 10, damping: float = 0.0, tolerance: float = 1e-10, matrix: str = 'hessian'
    ) -> None:
        super().__init__(matrix)
        if steps < 1:
            raise SettingError(f'hypergradient.steps must be at least 1, got {steps}')
        if damping < 0:
            raise SettingError(f'hypergradient.damping must not be negative, got {damping}')
        self.steps, self.damping, self.tolerance = steps, damping, tolerance
        self._warned = False

    def solve(self, hessian: Times, vector: Vector, average: Average) -> list[torch.Tensor]:
        """Run the iteration; see :meth:`InverseHessian.solve`."""
        solution = [torch.zeros_like(v) for v in vector]
        residual = direction = list(vector)
        (square,) = average([_inner(residual, residual)])
        goal = self.tolerance**2 * square
        for step in range(self.steps):
            if square <= goal:  # also a zero vector
                break
            image = [h + self.damping * d for h, d in zip(hessian(direction), direction)]
            (curvature,) = average([_inner(direction, image)])
            if curvature <= 0:
                if not self._warned:
                    print_log(
                        f'ConjugateGradient met negative curvature in step {step + 1} of {self.steps} and stops there; '
                        f"raise hypergradient.damping={self.damping} or set matrix='gauss_newton' to go on (said once)",
                        'current',
                        logging.WARNING,
                    )
                self._warned = True
                # Without a single step there is nothing but the direction itself: the identity's answer.
                return solution if step else list(vector)
            length = square / curvature
            solution = [x + length * d for x, d in zip(solution, direction)]
            residual = [r - length * i for r, i in zip(residual, image)]
            previous, (square,) = square, average([_inner(residual, residual)])
            direction = [r + square / previous * d for r, d in zip(residual, direction)]
        return solution


def _inner(a: Vector, b: Vector) -> torch.Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b)]).sum()
