"""Exact hypergradients by reverse mode twice: the reference for all others."""

from collections.abc import Callable, Sequence

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmmlo.registry import HYPERGRADIENTS

from .base import Average, LossFunction, SecondDerivatives, Vector, dense
from .not_differentiable import explained


def _gradient_graph(
    loss: LossFunction, lower: Sequence[torch.Tensor]
) -> tuple[list[torch.Tensor], list[torch.Tensor | None]]:
    """dL/dw with its graph, and the leaves w."""
    leaves = [w.detach().requires_grad_() for w in lower]
    # Fused attention has no second derivative. The plain kernel is chosen here, when the graph is built.
    with sdpa_kernel(SDPBackend.MATH):
        value = loss(leaves)
        if not value.requires_grad:
            return leaves, [None] * len(leaves)
        gradients: list[torch.Tensor | None] = [
            *torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True)
        ]
    _check_differentiable(gradients)
    return leaves, gradients


def _check_differentiable(gradients: Sequence[torch.Tensor | None]) -> None:
    """Raise where PyTorch would leave a term out.

    A custom function marked with ``once_differentiable`` ends its gradient in a node that raises when it is run. But that
    node has no edges to what the gradient depends on, so a derivative by those tensors comes out without it, silently.
    """
    nodes = [g.grad_fn for g in gradients if g is not None]
    seen = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == 'torch::autograd::Error':
            raise RuntimeError('trying to differentiate twice a function that was marked with @once_differentiable.')
        nodes.extend(following for following, _ in node.next_functions)


def _probe(function: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> None:
    leaves, gradients = _gradient_graph(lambda values: function(*values), inputs)
    connected = [g.sum() for g in gradients if g is not None and g.requires_grad]
    if connected:
        torch.autograd.grad(connected, leaves, allow_unused=True)


@HYPERGRADIENTS.register_module()
class DoubleBackward(SecondDerivatives):
    """Compute ``- d/du <dL/dw, v>``, both derivatives by reverse mode.

    Exact, and the textbook form that the others are compared with. It needs a second derivative of every operation,
    switches attention to the plain kernel for its pass, and keeps the graph of the whole backward pass in memory;
    :class:`ForwardMode` gives the same for less.

    Args:
        precondition (str): See :class:`SecondDerivatives`. Defaults to 'identity'.
    """

    def product(
        self,
        loss: LossFunction,
        lower: Sequence[torch.Tensor],
        upper: Sequence[torch.Tensor],
        vector: Vector,
        average: Average = list,
    ) -> list[torch.Tensor | None]:
        """Compute ``- d2L/du dw . vector``; see :meth:`HypergradientEstimator.product`."""
        with explained(type(self).__name__, loss, lower, _probe):
            _, gradients = _gradient_graph(loss, lower)
            pairs = [(g, v) for g, v in zip(gradients, vector) if g is not None and g.requires_grad]
            if not pairs:
                return [None] * len(upper)
            outputs, directions = zip(*pairs)
            products = torch.autograd.grad(outputs, upper, directions, allow_unused=True)
        return [None if p is None else -p for p in products]

    def hessian(self, loss: LossFunction, lower: Sequence[torch.Tensor]) -> Callable[[Vector], list[torch.Tensor]]:
        """Products with H, all through one graph; see :meth:`SecondDerivatives.hessian`."""
        with explained(type(self).__name__, loss, lower, _probe):
            leaves, gradients = _gradient_graph(loss, lower)

        def times(vector: Vector) -> list[torch.Tensor]:
            pairs = [(g, v) for g, v in zip(gradients, vector) if g is not None and g.requires_grad]
            if not pairs:
                return dense([None] * len(leaves), leaves)
            outputs, directions = zip(*pairs)
            with explained(type(self).__name__, loss, lower, _probe):
                products = torch.autograd.grad(outputs, leaves, directions, retain_graph=True, allow_unused=True)
            return [product.detach() for product in dense(products, leaves)]

        return times
