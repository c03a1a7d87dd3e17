"""Products with the Gauss-Newton matrix of a loss that is a sum of squares."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mmmlo.utils.errors import SettingError

from .base import LossFunction, Vector
from .forward_mode import directional_derivative


@dataclass
class ResidualLoss:
    """A loss function that also tells the residuals whose squares it sums.

    Attributes:
        loss (LossFunction): The loss, called as this object is.
        residuals (LossFunction): A tensor r of any shape with ``loss = (r ** 2).sum()``, by the same parameters.
    """

    loss: LossFunction
    residuals: LossFunction

    def __call__(self, lower: Vector) -> torch.Tensor:
        return self.loss(lower)


def gauss_newton(loss: LossFunction, lower: Vector) -> Callable[[Vector], list[torch.Tensor]]:
    """Build the function of a vector v that computes ``2 J^T J v``, J being the derivative of the residuals by ``lower``.

    That is the Hessian without the curvature of the residuals: it has no negative eigenvalue (Martens, 2010). A product
    takes a forward-mode pass, J v, and a backward pass through one graph that all products share; nothing is differentiated
    twice.

    Raises:
        SettingError: The loss is no :class:`ResidualLoss`.
    """
    if not isinstance(loss, ResidualLoss):
        raise SettingError(
            "hypergradient.matrix='gauss_newton' needs a loss that is a sum of squares, and this one tells no residuals: "
            "give the problem level_residuals(level, batch, fixed), or take matrix='hessian'"
        )
    leaves = [w.detach().requires_grad_() for w in lower]
    residuals = loss.residuals(leaves)

    def times(vector: Vector) -> list[torch.Tensor]:
        with torch.no_grad():
            tangent = directional_derivative(loss.residuals, leaves, vector)  # J v
        if tangent is None:
            return [torch.zeros_like(w) for w in leaves]
        products = torch.autograd.grad(residuals, leaves, 2 * tangent, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(w) if p is None else p for p, w in zip(products, leaves)]

    return times
