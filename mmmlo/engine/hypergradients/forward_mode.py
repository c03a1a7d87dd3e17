"""Exact hypergradients by one forward-mode and one reverse-mode pass."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mmmlo.registry import HYPERGRADIENTS

from .base import Average, LossFunction, SecondDerivatives, Vector, dense
from .not_differentiable import explained


class _OutOfPlaceRules(TorchDispatchMode):
    """Does nothing, which is enough: with a dispatch mode on, PyTorch's forward-mode rules do not write in place.

    The rule of ``logsumexp``, which softmax and cross entropy share, otherwise multiplies a tensor in place that reverse
    mode still needs, and the backward of the tangent fails (seen with torch 2.13).
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


# Function -> position and name of the flag that says whether it takes the batch's own statistics, and its default.
_BATCH_STATISTICS = {F.batch_norm: (5, 'training', False), F.instance_norm: (5, 'use_input_stats', True)}
# The second one calls the first from within, where a function mode does not see it.
_ATTENTION = {F.scaled_dot_product_attention, F.multi_head_attention_forward}
_RULES = {
    *_ATTENTION,
    *_BATCH_STATISTICS,
    F.layer_norm,
    F.cross_entropy,
    F.log_softmax,
    F.softmax,
    torch.Tensor.log_softmax,
    torch.Tensor.logsumexp,
    torch.Tensor.softmax,
    torch.log_softmax,
    torch.logsumexp,
    torch.softmax,
}


def _layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):  # noqa: A002
    """``F.layer_norm`` from elementary operations.

    The backward of the fused kernel's tangent takes mean and deviation for constants: it is silently wrong, by 12 % in a
    small example (torch 2.13, forward-mode AD and ``torch.func.jvp`` alike).
    """
    dims = tuple(range(-len(normalized_shape), 0))
    centered = input - input.mean(dims, keepdim=True)
    output = centered * (centered.square().mean(dims, keepdim=True) + eps).rsqrt()
    if weight is not None:
        output = output * weight
    return output if bias is None else output + bias


class _DualRules(TorchFunctionMode):
    """Choose what is differentiated correctly where a tangent flows, and leave everything else as fast as it is.

    - Fused attention has no forward-mode rule, so the plain kernel takes its place. Attention without a tangent, such as
      in a frozen encoder under a head that is differentiated, keeps its fused kernel.
    - Where the tangent is differentiated in turn, layer norm and the softmax family need other rules; batch norm on batch
      statistics has layer norm's fault and is refused.

    Raises:
        NotImplementedError: At a batch norm on batch statistics whose tangent would be differentiated.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in _RULES:
            return func(*args, **kwargs)
        inputs = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)]
        tangents = [forward_ad.unpack_dual(x).tangent for x in inputs]
        if all(tangent is None for tangent in tangents):
            return func(*args, **kwargs)
        recorded = any(x is not None and x.requires_grad for x in (*inputs, *tangents))
        if func in _ATTENTION:
            with sdpa_kernel(SDPBackend.MATH), _OutOfPlaceRules() if recorded else nullcontext():
                return func(*args, **kwargs)
        if not recorded:
            return func(*args, **kwargs)
        if func is F.layer_norm:
            return _layer_norm(*args, **kwargs)
        if func in _BATCH_STATISTICS:
            position, name, default = _BATCH_STATISTICS[func]
            if not (args[position] if len(args) > position else kwargs.get(name, default)):
                return func(*args, **kwargs)
            raise NotImplementedError(
                f'{func.__name__} on batch statistics: PyTorch differentiates its forward-mode rule wrongly, so ForwardMode '
                "refuses it; use hypergradient=dict(type='mmmlo.FiniteDifference'), or another norm"
            )
        with _OutOfPlaceRules():
            return func(*args, **kwargs)


def _directional_derivative(loss: LossFunction, lower: Sequence[torch.Tensor], vector: Vector) -> torch.Tensor | None:
    """dL/dw . v, with the graphs to whatever else the loss depends on; None if it does not depend on w."""
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(w, v.detach()) for w, v in zip(lower, vector)]
        with _DualRules():
            value = loss(duals)
        return forward_ad.unpack_dual(value).tangent


def _probe(function: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> None:
    leaves = [value.detach().requires_grad_() for value in inputs]
    ones = [torch.ones_like(value) for value in inputs]
    derivative = _directional_derivative(lambda values: function(*values), leaves, ones)
    if derivative is not None and derivative.requires_grad:
        torch.autograd.grad(derivative, leaves, allow_unused=True)


@HYPERGRADIENTS.register_module()
class ForwardMode(SecondDerivatives):
    """``- d/du (dL/dw . v)``: a forward-mode product along v, then reverse mode through what depends on u.

    Exact. The lower parameters enter without a graph, so the reverse pass runs only through what the upper parameters
    reach. For MLO-MAE's masker, on which the loss depends through the weights alone, that is the masker itself:
    ``- d/dT sum(mask * p(T) * (dl/dE . v)) / sum(mask)``, one forward-mode pass of encoder and decoder, nothing recorded.

    It needs a forward-mode rule for every operation on the way from w, and switches attention to the plain kernel and
    layer norm to elementary operations where tangents flow. Everything else keeps its fast kernels.

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
            tangent = _directional_derivative(loss, [w.detach() for w in lower], vector)
            if tangent is None or not tangent.requires_grad:
                return [None] * len(upper)
            products = torch.autograd.grad(tangent, upper, allow_unused=True)
        return [None if p is None else -p for p in products]

    def hessian(self, loss: LossFunction, lower: Sequence[torch.Tensor]) -> Callable[[Vector], list[torch.Tensor]]:
        """Products with H, a pass each; see :meth:`SecondDerivatives.hessian`."""

        def times(vector: Vector) -> list[torch.Tensor]:
            leaves = [w.detach().requires_grad_() for w in lower]
            with explained(type(self).__name__, loss, lower, _probe):
                tangent = _directional_derivative(loss, leaves, vector)
                if tangent is None or not tangent.requires_grad:
                    return dense([None] * len(leaves), leaves)
                products = torch.autograd.grad(tangent, leaves, allow_unused=True)
            return dense(products, leaves)

        return times
