"""What cannot be differentiated is named, with the estimator to use instead."""

import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from mmmlo.engine import ConjugateGradient, DoubleBackward, FiniteDifference, ForwardMode, Neumann, NotDifferentiableError


class Square(torch.autograd.Function):
    """No forward-mode rule, and no second derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return 2 * gradient * ctx.saved_tensors[0]


class Custom(nn.Module):
    def forward(self, x):
        return Square.apply(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.block = nn.Sequential(nn.GELU(), Custom(), nn.LayerNorm(3))


def problem():
    torch.manual_seed(0)
    net, u = Net().double(), torch.ones(3, dtype=torch.float64, requires_grad=True)
    names, lower = zip(*((n, p.detach()) for n, p in net.named_parameters()))
    x = torch.randn(4, 3, dtype=torch.float64)
    net.forward = lambda x: net.block(net.first(x))

    def loss(values):
        return (u * functional_call(net, dict(zip(names, values)), (x,)).square()).sum()

    return net, loss, lower, [u], [torch.randn_like(p) for p in lower]


ESTIMATORS = [ForwardMode(), DoubleBackward(), ConjugateGradient(), Neumann()]


@pytest.mark.parametrize('estimator', ESTIMATORS, ids=lambda e: type(e).__name__)
def test_names_the_innermost_module(estimator):
    net, loss, lower, upper, vector = problem()
    with pytest.raises(NotDifferentiableError) as error:
        estimator.product(loss, lower, upper, vector)
    assert error.value.module is net.block[1]
    text = str(error.value)
    assert text.startswith(f'{type(estimator).__name__} cannot differentiate a Custom:')
    assert text.endswith("Use hypergradient=dict(type='mmmlo.FiniteDifference'), which needs first derivatives only")
    assert 'model.block.1: Custom' in str(error.value.located_in(net))


def test_the_estimator_it_names_works():
    _, loss, lower, upper, vector = problem()
    (product,) = FiniteDifference().product(loss, lower, upper, vector)
    assert product.isfinite().all() and product.abs().min() > 0


def test_outside_of_modules():
    u, w = torch.ones(2, requires_grad=True), torch.ones(2)
    with pytest.raises(NotDifferentiableError, match='an operation outside of modules'):
        DoubleBackward().product(lambda lower: (u * Square.apply(lower[0])).sum(), [w], [u], [w])


def test_other_errors_pass():
    def loss(lower):
        raise RuntimeError('out of memory')

    with pytest.raises(RuntimeError, match='^out of memory$'):
        ForwardMode().product(loss, [torch.ones(1)], [torch.ones(1, requires_grad=True)], [torch.ones(1)])
