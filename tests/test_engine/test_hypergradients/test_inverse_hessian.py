"""Neumann and ConjugateGradient on quadratics, whose solutions have a closed form."""

import pytest
import torch

from mmmlo.engine import ConjugateGradient, ForwardMode, Neumann


@pytest.fixture
def quadratic():
    """L(u, w) = w'Hw/2 - u'Bw with H positive definite; - d2L/du dw H^-1 v = B H^-1 v."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    hessian = root @ root.T + torch.eye(6, dtype=torch.float64)
    mixed = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    u = torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)
    w, v = (torch.randn(6, generator=generator, dtype=torch.float64) for _ in range(2))

    def loss(lower):
        joined = torch.cat(list(lower))
        return joined @ hessian @ joined / 2 - u @ mixed @ joined

    def split(vector):
        return [vector[:2], vector[2:]]  # two tensors, as of two parameters

    def relative_error(estimator, damping=0.0):
        (product,) = estimator.product(loss, split(w), [u], split(v))
        expected = mixed @ torch.linalg.solve(hessian + damping * torch.eye(6, dtype=torch.float64), v)
        return ((product - expected).norm() / expected.norm()).item()

    relative_error.largest = torch.linalg.eigvalsh(hessian)[-1].item()
    return relative_error


def test_conjugate_gradient_solves_in_as_many_steps_as_dimensions(quadratic):
    assert quadratic(ConjugateGradient(steps=6)) < 1e-8
    assert quadratic(ConjugateGradient(steps=6, damping=0.5), damping=0.5) < 1e-8
    assert quadratic(ConjugateGradient(steps=2)) > 1e-3


def test_neumann_converges_with_more_terms(quadratic):
    lr = 1 / quadratic.largest
    errors = [quadratic(Neumann(terms=terms, lr=lr)) for terms in (1, 10, 100, 1000)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.1
    assert errors[-1] < 1e-6


def test_neumann_of_one_term_is_the_identity_times_the_learning_rate():
    u, w, v = torch.ones(2, requires_grad=True), torch.ones(2), torch.tensor([1.0, 2.0])
    (product,) = Neumann(terms=1, lr=0.5).product(lambda lower: -(u * lower[0]).sum(), [w], [u], [v])
    torch.testing.assert_close(product, 0.5 * v)


def test_products_with_h_are_averaged_over_processes():
    """Each process has its own H: the solution is that of their mean, not the mean of the solutions."""
    u, w = torch.ones(2, dtype=torch.float64, requires_grad=True), torch.ones(2).double()
    v = torch.tensor([1.0, 2.0]).double()
    mine, other = torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0, 8.0]).double()

    def loss(lower):
        return (mine * lower[0].square()).sum() / 2 - (u * lower[0]).sum()

    def average(products):
        # What a second process with the diagonal `other` would add; scalars are equal on both.
        return [product if product.dim() == 0 else (product + product / mine * other) / 2 for product in products]

    for estimator in (ConjugateGradient(steps=5), Neumann(terms=500, lr=0.1)):
        (product,) = estimator.product(loss, [w], [u], [v], average)
        torch.testing.assert_close(product, v / ((mine + other) / 2))


def test_negative_curvature_ends_the_iteration_with_what_there_is(caplog):
    u, w = torch.ones(2, dtype=torch.float64, requires_grad=True), torch.ones(2).double()
    curvature = torch.tensor([1.0, -0.5]).double()

    def loss(lower):
        return (curvature * lower[0].square()).sum() / 2 - (u * lower[0]).sum()

    (at_once,) = ConjugateGradient().product(loss, [w], [u], [torch.tensor([0.0, 3.0]).double()])
    torch.testing.assert_close(at_once, torch.tensor([0.0, 3.0]).double())
    vector = torch.tensor([2.0, 1.0]).double()
    (later,) = ConjugateGradient().product(loss, [w], [u], [vector])
    first = (vector @ vector) / (vector * curvature @ vector) * vector
    torch.testing.assert_close(later, first)
    damped = ConjugateGradient(damping=1.0)
    (solved,) = damped.product(loss, [w], [u], [vector])
    torch.testing.assert_close(solved, vector / (curvature + 1))


def test_a_zero_vector_needs_no_step():
    u, w = torch.ones(2, requires_grad=True), torch.ones(2)
    (product,) = ConjugateGradient().product(lambda lower: -(u * lower[0].square()).sum(), [w], [u], [torch.zeros(2)])
    assert torch.equal(product, torch.zeros(2))


@pytest.mark.parametrize(
    ('build', 'words'),
    [
        (lambda: Neumann(terms=0), r'hypergradient\.terms'),
        (lambda: Neumann(lr=0), r'hypergradient\.lr'),
        (lambda: ConjugateGradient(steps=0), r'hypergradient\.steps'),
        (lambda: ConjugateGradient(damping=-1), r'hypergradient\.damping'),
        (lambda: ForwardMode('hessian'), r"hypergradient\.precondition.*'hessian'"),
    ],
)
def test_wrong_arguments(build, words):
    with pytest.raises(ValueError, match=words):
        build()
