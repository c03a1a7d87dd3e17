"""Names the module that an estimator cannot differentiate."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._pytree import tree_leaves, tree_map

from mmmlo.utils.errors import UnsupportedError

from .base import HypergradientEstimator, LossFunction, Products, Vector

# What PyTorch says when an operation lacks a derivative. Other errors, such as a lack of memory, are not ours to explain.
_SIGNS = (
    'not implemented', 'does not support', 'forward AD', 'forward-mode', 'once_differentiable', 'double backward', 'jvp'
)

Differentiate = Callable[[LossFunction, Vector, Vector, Vector], Products]
"""What an estimator does to a loss, its lower and upper parameters and a vector; raises what PyTorch raises."""


class NotDifferentiableError(UnsupportedError):
    """A ``module``, or an operation outside of modules (None), that an estimator cannot differentiate."""

    def __init__(self, estimator: str, cause: Exception, module: nn.Module | None, name: str = '') -> None:
        self.estimator, self.cause, self.module = estimator, cause, module
        where = f'{name or "a"} {type(module).__name__}' if module is not None else 'an operation outside of modules'
        super().__init__(
            f'{estimator} cannot differentiate {where}: {str(cause).splitlines()[0]} Use '
            "hypergradient=dict(type='mmmlo.FiniteDifference'), which needs first derivatives only"
        )

    def located_in(self, root: nn.Module) -> 'NotDifferentiableError':
        """The same error with the module's name as seen from ``root``, the model."""
        names = {id(module): name for name, module in root.named_modules()}
        name = names.get(id(self.module))
        module = None if name is None else self.module  # the engine's own around the model says nothing
        return NotDifferentiableError(self.estimator, self.cause, module, f'model.{name}:')


@contextmanager
def explained(
    estimator: HypergradientEstimator, differentiate: Differentiate, loss: LossFunction, lower: Vector
) -> Iterator[None]:
    """Turn PyTorch's errors about missing derivatives into a :class:`NotDifferentiableError` that names the module.

    The loss is run once more after an error, and each of its modules differentiated by itself.
    """
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        if not any(sign in str(error) for sign in _SIGNS):
            raise
        module = _find_module(str(error), differentiate, loss, lower)
        raise NotDifferentiableError(type(estimator).__name__, error, module) from error


def _find_module(message: str, differentiate: Differentiate, loss: LossFunction, lower: Vector) -> nn.Module | None:
    """The first of the innermost modules that fails in the same way when it is differentiated by itself."""
    failing: list[nn.Module] = []
    probing = False

    def after_forward(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        # A module's hook runs after those of the modules inside it, so the innermost comes first.
        nonlocal probing
        if probing or failing:
            return
        probing = True
        inputs = [value.detach() for value in tree_leaves((args, kwargs)) if _is_input(value)]
        shifts = [torch.zeros_like(value).requires_grad_() for value in inputs]

        def shifted(values: Vector) -> torch.Tensor:
            remaining = iter([value + shift for value, shift in zip(values, shifts)])
            given, named = tree_map(lambda value: next(remaining) if _is_input(value) else value, (args, kwargs))
            outputs = [value for value in tree_leaves(module(*given, **named)) if _is_input(value)]
            # Squares, so that second derivatives do not vanish.
            return sum((value.square().sum() for value in outputs), torch.zeros(()))

        try:
            differentiate(shifted, inputs, shifts, [torch.ones_like(value) for value in inputs])
        except Exception as error:
            if str(error).splitlines()[:1] == message.splitlines()[:1]:
                failing.append(module)
        finally:
            probing = False

    handle = register_module_forward_hook(after_forward, with_kwargs=True)
    try:
        loss([w.detach() for w in lower])
    finally:
        handle.remove()
    return failing[0] if failing else None


def _is_input(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()
