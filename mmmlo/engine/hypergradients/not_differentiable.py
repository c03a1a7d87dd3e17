"""Names the module that an estimator cannot differentiate."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._pytree import tree_leaves, tree_map

from mmmlo.utils.errors import UnsupportedError

from .base import LossFunction

# What PyTorch says when an operation lacks a derivative. Other errors, such as a lack of memory, are not ours to explain.
_SIGNS = (
    'not implemented',
    'does not support',
    'forward AD',
    'forward-mode',
    'once_differentiable',
    'double backward',
    'jvp',
)

Probe = Callable[[Callable[..., Any], list[torch.Tensor]], None]
"""Differentiates ``function(*inputs)`` in the estimator's way, and raises what PyTorch raises."""


class NotDifferentiableError(UnsupportedError):
    """A module, or an operation outside of modules, that an estimator cannot differentiate.

    Attributes:
        module (nn.Module | None): The module, where one was found.
    """

    def __init__(
        self, estimator: str, cause: Exception, module: nn.Module | None, name: str = '', key: str = 'hypergradient'
    ) -> None:
        self.estimator, self.cause, self.module, self.key = estimator, cause, module, key
        where = f'{name or "a"} {type(module).__name__}' if module is not None else 'an operation outside of modules'
        super().__init__(
            f'{estimator} cannot differentiate {where}: {str(cause).splitlines()[0]} Use '
            f"{key}=dict(type='mmmlo.FiniteDifference'), which needs first derivatives only"
        )

    def located_in(self, root: nn.Module) -> 'NotDifferentiableError':
        """The same error with the module's name as seen from ``root``, the model."""
        names = {id(module): name for name, module in root.named_modules()}
        name = names.get(id(self.module))
        module = None if name is None else self.module  # the engine's own around the model says nothing
        return NotDifferentiableError(self.estimator, self.cause, module, f'model.{name}:', self.key)

    def inside(self, estimator: str) -> 'NotDifferentiableError':
        """The same error, of the products that another estimator uses."""
        return NotDifferentiableError(
            f'{estimator}, by {self.estimator},', self.cause, self.module, key='hypergradient.products'
        )


@contextmanager
def explained(estimator: str, loss: LossFunction, lower: Sequence[torch.Tensor], probe: Probe) -> Iterator[None]:
    """Turn PyTorch's errors about missing derivatives into one that names the module.

    Args:
        estimator (str): The estimator's name.
        loss (LossFunction): What was differentiated; it is run once more after an error.
        lower (Sequence[torch.Tensor]): Its arguments.
        probe (Probe): How the estimator differentiates.

    Raises:
        NotDifferentiableError: In place of the error.
    """
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        if isinstance(error, NotDifferentiableError) or not any(sign in str(error) for sign in _SIGNS):
            raise
        raise NotDifferentiableError(estimator, error, _find_module(str(error), loss, lower, probe)) from error


def _find_module(message: str, loss: LossFunction, lower: Sequence[torch.Tensor], probe: Probe) -> nn.Module | None:
    """The first of the innermost modules that fails in the same way when it is differentiated by itself."""
    failing: list[nn.Module] = []
    probing = False

    def after_forward(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        # A module's hook runs after those of the modules inside it, so the innermost comes first.
        nonlocal probing
        if probing or failing:
            return
        inputs, call = _flatten(module, args, kwargs)
        probing = True
        try:
            probe(call, inputs)
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


def _flatten(module: nn.Module, args: Any, kwargs: Any) -> tuple[list[torch.Tensor], Callable[..., torch.Tensor]]:
    """A module's call as a function of the floating-point tensors among its arguments, with a scalar for result."""

    def is_input(value: Any) -> bool:
        return isinstance(value, torch.Tensor) and value.is_floating_point()

    inputs = [value.detach() for value in tree_leaves((args, kwargs)) if is_input(value)]

    def call(*values: torch.Tensor) -> torch.Tensor:
        remaining = iter(values)
        given, named = tree_map(lambda value: next(remaining) if is_input(value) else value, (args, kwargs))
        outputs = [value for value in tree_leaves(module(*given, **named)) if is_input(value)]
        # Squares, so that second derivatives do not vanish.
        return sum((value.square().sum() for value in outputs), torch.zeros(()))

    return inputs, call
