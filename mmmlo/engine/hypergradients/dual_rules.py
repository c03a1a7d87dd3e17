"""Which kernels and rules forward-mode differentiation uses, where PyTorch's own are missing, wrong or slow."""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


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
    F.linear,
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


def _linear(input, weight, bias=None):  # noqa: A002
    """``F.linear`` with a tangent that takes no pass but the products. Not to be differentiated: it writes in place."""
    (x, dx), (w, dw), (b, db) = (
        (None, None) if value is None else forward_ad.unpack_dual(value) for value in (input, weight, bias)
    )
    output = F.linear(x, w, b)
    if dx is None and dw is None:
        tangent = db.to(output.dtype).expand_as(output)
    elif dx is None:
        tangent = F.linear(x, dw, db)
    else:
        tangent = F.linear(dx, w, db)
        if dw is not None:
            rows = x.reshape(-1, x.shape[-1]).to(tangent.dtype)
            tangent.view(-1, tangent.shape[-1]).addmm_(rows, dw.to(tangent.dtype).t())
    return forward_ad.make_dual(output, tangent)


def _is_plain(args, kwargs, tangents) -> bool:
    """Whether attention is softmax(q k / sqrt(d)) v and nothing else, and all of q, k and v have a tangent."""
    if len(args) != 3 or len(tangents) != 3 or any(tangent is None for tangent in tangents):
        return False
    return all(name == 'dropout_p' and not value or value in (None, False) for name, value in kwargs.items())


def _attention(query, key, value):
    """``F.scaled_dot_product_attention`` with its tangent, written out. Not to be differentiated: it writes in place."""
    (q, dq), (k, dk), (v, dv) = (forward_ad.unpack_dual(x) for x in (query, key, value))
    scale = q.shape[-1] ** -0.5
    q, dq, k = q * scale, dq * scale, k.transpose(-2, -1)
    weights = torch.softmax(q @ k, dim=-1)
    change = (dq @ k).add_(q @ dk.transpose(-2, -1)).to(weights.dtype).mul_(weights)
    change.addcmul_(weights, change.sum(dim=-1, keepdim=True), value=-1)
    return forward_ad.make_dual(weights @ v, (change @ v).add_(weights @ dv))


class DualRules(TorchFunctionMode):
    """Choose what is differentiated correctly where a tangent flows, and leave everything else as fast as it is.

    - Fused attention has no forward-mode rule, so products and softmax written out, or the plain kernel, take its place.
      Attention without a tangent, such as in a frozen encoder under a head that is differentiated, keeps its fused kernel.
    - A linear layer's tangent is added up by the matrix products themselves; PyTorch's rule adds three results.
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
        if func is F.linear:
            return func(*args, **kwargs) if recorded else _linear(*args, **kwargs)
        if func in _ATTENTION:
            if func is F.scaled_dot_product_attention and not recorded and _is_plain(args, kwargs, tangents):
                return _attention(*args[:3])
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
