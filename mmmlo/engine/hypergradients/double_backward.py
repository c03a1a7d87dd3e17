"""Exact hypergradients by reverse mode twice: the reference for all others."""

from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmmlo.registry import HYPERGRADIENTS

from .base import Average, HypergradientEstimator, LossFunction, Products, Vector
from .not_differentiable import explained


@HYPERGRADIENTS.register_module()
class DoubleBackward(HypergradientEstimator):
    """Compute ``- d/du <dL/dw, v>``, both derivatives by reverse mode.

    Exact, and the textbook form that the others are compared with. It needs a second derivative of every operation,
    switches attention to the plain kernel for its pass, and keeps the graph of the whole backward pass in memory;
    :class:`ForwardMode` gives the same for less.

    Args:
        precondition (str): See :class:`HypergradientEstimator`. Defaults to 'identity'.
    """

    def product(
        self, loss: LossFunction, lower: Vector, upper: Vector, vector: Vector, average: Average = list
    ) -> Products:
        """Compute ``- d2L/du dw . vector``; see :meth:`HypergradientEstimator.product`."""
        with explained(self, double_backward, loss, lower):
            return double_backward(loss, lower, upper, vector)


def double_backward(loss: LossFunction, lower: Vector, upper: Vector, vector: Vector) -> Products:
    return [None if p is None else -p for p in gradient_graph(loss, lower)[1](upper, vector)]


def gradient_graph(loss: LossFunction, lower: Vector) -> tuple[list[torch.Tensor], Callable[..., Products]]:
    """Build the graph of dL/dw.

    Returns:
        tuple: Leaves w, and a function of tensors to differentiate by, a vector, and arguments of ``torch.autograd.grad``:
        the derivatives of <dL/dw, vector>, None where there are none.
    """
    leaves = [w.detach().requires_grad_() for w in lower]
    # Fused attention has no second derivative. The plain kernel is chosen here, when the graph is built.
    with sdpa_kernel(SDPBackend.MATH):
        value = loss(leaves)
        gradients: Products = [None] * len(leaves)
        if value.requires_grad:
            gradients = [*torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True)]
    _check_differentiable(gradients)

    def differentiate(inputs: Vector, vector: Vector, **kwargs) -> Products:
        pairs = [(g, v) for g, v in zip(gradients, vector) if g is not None and g.requires_grad]
        if not pairs:
            return [None] * len(inputs)
        outputs, directions = zip(*pairs)
        return list(torch.autograd.grad(outputs, inputs, directions, allow_unused=True, **kwargs))

    return leaves, differentiate


def _check_differentiable(gradients: Products) -> None:
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
