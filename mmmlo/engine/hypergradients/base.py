"""The interface of hypergradient estimators."""

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Sequence

import torch

LossFunction = Callable[[Sequence[torch.Tensor]], torch.Tensor]
"""Loss of a lower level, a scalar, as a function of that level's parameters, in the order given to the estimator."""


class HypergradientEstimator(metaclass=ABCMeta):
    """Carries a vector from a lower level's parameters to an upper level's.

    Let the lower level minimize L(u, w) over w, with u the upper level's parameters. By the implicit function theorem the
    gradient of an upper loss F(w*(u)) is ``- d2L/du dw . H^-1 . dF/dw``. An estimator computes that product for a given
    vector; all of those here take the identity for the inverse Hessian H^-1, as one step of gradient descent does, and as
    the released MLO-MAE does by Betty's ``darts``.

    Estimators know tensors and closures only: no images, no levels, no optimizers.

    Attributes:
        full_precision (bool): Whether the loss must not run under autocast. Defaults to False.
    """

    full_precision: bool = False

    @abstractmethod
    def product(
        self,
        loss: LossFunction,
        lower: Sequence[torch.Tensor],
        upper: Sequence[torch.Tensor],
        vector: Sequence[torch.Tensor],
    ) -> list[torch.Tensor | None]:
        """Compute ``- d2L/du dw . vector``.

        Args:
            loss (LossFunction): L as a function of the lower parameters w. It must be deterministic: called twice with the
                same w it returns the same, dropout included.
            lower (Sequence[torch.Tensor]): w, the point at which to differentiate. Never written to.
            upper (Sequence[torch.Tensor]): u, leaves that require grad and that ``loss`` reads.
            vector (Sequence[torch.Tensor]): A tensor for each of ``lower``.

        Returns:
            list[torch.Tensor | None]: A tensor for each of ``upper``, ``None`` where the loss does not depend on it
            (a zero tensor where only the estimator's arithmetic shows that).
        """
