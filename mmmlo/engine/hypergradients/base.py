"""The interface of hypergradient estimators."""

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterable, Sequence

import torch

from mmmlo.registry import HYPERGRADIENTS
from mmmlo.utils.errors import SettingError

Vector = Sequence[torch.Tensor]
"""A tensor for each of a level's parameters."""

LossFunction = Callable[[Vector], torch.Tensor]
"""Loss of a lower level, a scalar, as a function of that level's parameters, in the order given to the estimator."""

Products = list[torch.Tensor | None]
"""A tensor for each of the upper level's parameters, or None where the loss does not depend on it."""

Average = Callable[[Vector], list[torch.Tensor]]
"""Averages a vector over processes; ``list`` does nothing."""

PRECONDITIONS = ('identity', 'lr', 'adam')


class HypergradientEstimator(metaclass=ABCMeta):
    """Carries a vector from a lower level's parameters to an upper level's.

    Let the lower level minimize L(u, w) over w, with u the upper level's parameters. By the implicit function theorem the
    gradient of an upper loss F(w*(u)) is ``- d2L/du dw . H^-1 . dF/dw``, with H = d2L/dw2. An estimator computes that
    product for a given vector in place of dF/dw. What stands in place of H^-1 tells them apart: the identity, which is what
    one step of gradient descent on L comes to, up to its learning rate, and what the released MLO-MAE has by Betty's
    ``darts``; a diagonal; or an approximation of H^-1 itself.

    Estimators know tensors and closures only: no images, no levels, no optimizers.

    Args:
        precondition (str): The diagonal that stands in place of H^-1: 'identity'; 'lr', the learning rate of each
            parameter; or 'adam', the derivative of Adam's last step by its gradient, as in SAMA (Choe et al., 2023).
            Whoever calls :meth:`product` applies it to the vector, see :func:`precondition`. Defaults to 'identity'.

    Attributes:
        full_precision (bool): Whether the loss must not run under autocast. Defaults to False.

    Raises:
        ValueError: If ``precondition`` is none of these.
    """

    full_precision: bool = False

    def __init__(self, precondition: str = 'identity') -> None:
        if precondition not in PRECONDITIONS:
            raise SettingError(f'hypergradient.precondition must be one of {PRECONDITIONS}, got {precondition!r}')
        self.precondition = precondition

    @abstractmethod
    def product(
        self, loss: LossFunction, lower: Vector, upper: Vector, vector: Vector, average: Average = list
    ) -> Products:
        """Compute ``- d2L/du dw . H^-1 . vector``, or what the estimator has in place of H^-1.

        Args:
            loss (LossFunction): L as a function of the lower parameters w. It must be deterministic: called twice with the
                same w it returns the same, dropout included.
            lower (Vector): w, the point at which to differentiate. Never written to.
            upper (Vector): u, leaves that require grad and that ``loss`` reads.
            vector (Vector): A tensor for each of ``lower``, the same on every process.
            average (Average): Averages products with H over processes, each of which has its own batch and with it its own
                H. The result is not averaged. Defaults to ``list``: a single process.

        Returns:
            Products: A tensor for each of ``upper``, ``None`` where the loss does not depend on it (a zero tensor where
            only the estimator's arithmetic shows that).

        Raises:
            NotDifferentiableError: If the loss has an operation that cannot be differentiated this way.
        """


def norm_of(tensors: Iterable[torch.Tensor | None]) -> torch.Tensor:
    """Compute the norm of all tensors together, by one kernel as in PyTorch's clipping; those that are None are left out."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm([t for t in tensors if t is not None])))


def build_estimator(cfg: dict, key: str = 'hypergradient') -> HypergradientEstimator:
    """Build an estimator from its config.

    Args:
        cfg (dict): ``type``, and the estimator's arguments.
        key (str): Where the config stands, for the message. Defaults to 'hypergradient'.

    Raises:
        ValueError: If the type is unknown or the arguments are wrong.
    """
    arguments = dict(cfg)
    kind = arguments.pop('type', None)
    estimator = HYPERGRADIENTS.get(kind) if isinstance(kind, str) else None
    if estimator is None:
        names = sorted(f'mmmlo.{name}' for name in HYPERGRADIENTS.module_dict if not name.startswith('_'))
        raise SettingError(f'{key}.type {kind!r} is unknown; estimators are {names}')
    try:
        # Not by the registry's build, which would look for the default scope of other frameworks and warn.
        return estimator(**arguments)
    except (TypeError, ValueError) as error:
        raise SettingError(f'{key}, {kind}: {error}') from error
