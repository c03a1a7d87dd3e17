"""Preconditioned hypergradients against unrolling one real optimizer step, by finite differences of the step itself."""

import pytest
import torch

from mmmlo.engine import ForwardMode, check_adam, precondition


def run(optimizer_class, u, steps, **kwargs):
    """Some steps of an optimizer on L(u, w), the last one of which reads u; returns w, the optimizer, the last gradient."""
    w = torch.linspace(-1, 1, 5, dtype=torch.float64).requires_grad_()
    optimizer = optimizer_class([w], **kwargs)
    frozen = torch.ones_like(u)
    for step in range(steps):
        w.grad = torch.autograd.grad(loss_of(u if step == steps - 1 else frozen, w, step), w)[0].detach()
        optimizer.step()
    return w, optimizer, w.grad


def loss_of(u, w, step):
    return ((u * w - 0.1 * step) ** 2).sum() + (u**2 * w.sin()).sum()


@pytest.mark.parametrize('steps', [1, 2, 6])
@pytest.mark.parametrize(
    ('kind', 'optimizer', 'kwargs'),
    [
        ('lr', torch.optim.SGD, dict(lr=0.3)),
        ('adam', torch.optim.Adam, dict(lr=0.02, betas=(0.9, 0.95))),
        ('adam', torch.optim.AdamW, dict(lr=0.02, betas=(0.9, 0.999), weight_decay=0.1, eps=1e-3)),
    ],
)
def test_equals_unrolling_the_last_step(kind, optimizer, kwargs, steps):
    u = torch.linspace(0.5, 1.5, 5, dtype=torch.float64)
    v = torch.linspace(1, 2, 5, dtype=torch.float64)
    eps = 1e-6
    expected = torch.stack(
        [
            (run(optimizer, u + eps * e, steps, **kwargs)[0] - run(optimizer, u - eps * e, steps, **kwargs)[0]).detach() @ v
            for e in torch.eye(5, dtype=torch.float64)
        ]
    ) / (2 * eps)

    before = run(optimizer, torch.ones_like(u), steps - 1, **kwargs)[0].detach()  # where the last gradient was taken
    w, stepped, gradient = run(optimizer, u, steps, **kwargs)
    vector = precondition(kind, stepped, [w], [v], [gradient])
    leaf = u.clone().requires_grad_()
    (actual,) = ForwardMode(kind).product(lambda lower: loss_of(leaf, lower[0], steps - 1), [before], [leaf], vector)
    torch.testing.assert_close(actual, expected, rtol=2e-6, atol=1e-9)


def test_identity_and_parameter_groups():
    first, second = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.SGD([dict(params=[first], lr=0.5), dict(params=[second])], lr=2.0)
    vector = [torch.ones(2), torch.ones(2)]
    assert precondition('identity', optimizer, [first, second], vector) == vector
    scaled = precondition('lr', optimizer, [second, first], vector)
    assert [s.tolist() for s in scaled] == [[2.0, 2.0], [0.5, 0.5]]


def test_a_parameter_that_did_not_move_carries_nothing():
    moved, still = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.AdamW([moved, still])
    for gradient in (1.0, 3.0):  # after one step alone the derivative of g / |g| is zero
        moved.grad = torch.full((2,), gradient)
        optimizer.step()
    products = precondition('adam', optimizer, [moved, still], [torch.ones(2)] * 2, [moved.grad, None])
    assert products[0].abs().min() > 0
    assert torch.equal(products[1], torch.zeros(2))


@pytest.mark.parametrize(
    ('optimizer', 'words'),
    [
        (lambda p: torch.optim.SGD(p, lr=1.0), 'the optimizer is SGD'),
        (lambda p: torch.optim.AdamW(p, amsgrad=True), 'amsgrad is on'),
        (lambda p: torch.optim.Adam(p, weight_decay=0.1), 'weight_decay'),
    ],
)
def test_adam_needs_adam(optimizer, words):
    w = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match=words):
        check_adam(optimizer([w]))


def test_adam_needs_the_last_gradient():
    w = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match='last step'):
        precondition('adam', torch.optim.AdamW([w]), [w], [torch.ones(2)])
