"""What the estimators that approximate the inverse Hessian share."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch

from mmmlo.utils.errors import SettingError

from .base import Average, HypergradientEstimator, LossFunction, SecondDerivatives, Vector, build_estimator
from .not_differentiable import NotDifferentiableError


class InverseHessian(HypergradientEstimator):
    """Solves H x = v, then carries x as the identity's estimator does.

    Everything runs in full precision: a linear system is solved to more digits than autocast keeps.

    Args:
        products (dict | SecondDerivatives, optional): The estimator that multiplies by second derivatives. Defaults to
            ``dict(type='mmmlo.DoubleBackward')``, which builds its graph once for all products with H.

    Raises:
        ValueError: If ``products`` is no such estimator or has a precondition of its own.
    """

    full_precision = True

    def __init__(self, products: dict | SecondDerivatives | None = None) -> None:
        built: HypergradientEstimator
        if products is None or isinstance(products, dict):
            built = build_estimator(products or dict(type='mmmlo.DoubleBackward'), 'hypergradient.products')
        else:
            built = products
        if not isinstance(built, SecondDerivatives):
            raise SettingError(
                'hypergradient.products must multiply by second derivatives, as mmmlo.DoubleBackward, mmmlo.ForwardMode '
                f'and mmmlo.FiniteDifference do; {type(built).__name__} does not'
            )
        if built.precondition != 'identity':
            raise SettingError(
                f"hypergradient.products.precondition is {built.precondition!r}, but {type(self).__name__} has the "
                "inverse Hessian in its place; leave it at 'identity'"
            )
        self.products = built

    @abstractmethod
    def solve(
        self, hessian: Callable[[Vector], list[torch.Tensor]], vector: Vector, average: Average = list
    ) -> list[torch.Tensor]:
        """Approximate ``H^-1 . vector``.

        Args:
            hessian (Callable[[Vector], list[torch.Tensor]]): A vector -> H times the vector, averaged over processes.
            vector (Vector): The right-hand side.
            average (Average): Averages over processes what a decision hangs on. They have the same numbers up to rounding,
                and must not decide differently: one would wait for the others for ever. Defaults to ``list``.

        Returns:
            list[torch.Tensor]: The solution, a tensor for each of the vector's.
        """

    def product(
        self,
        loss: LossFunction,
        lower: Sequence[torch.Tensor],
        upper: Sequence[torch.Tensor],
        vector: Vector,
        average: Average = list,
    ) -> list[torch.Tensor | None]:
        """Compute ``- d2L/du dw . H^-1 . vector``; see :meth:`HypergradientEstimator.product`."""
        try:
            times = self.products.hessian(loss, lower)
            solution = self.solve(lambda direction: average(times(direction)), [v.detach() for v in vector], average)
            return self.products.product(loss, lower, upper, solution)
        except NotDifferentiableError as error:
            raise error.inside(type(self).__name__) from error.cause


def inner(a: Vector, b: Vector) -> torch.Tensor:
    """Inner product of two vectors, a scalar."""
    return torch.stack([(x * y).sum() for x, y in zip(a, b)]).sum()
