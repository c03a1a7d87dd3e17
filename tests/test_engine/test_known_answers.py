"""Estimators and wrapper on plain modules and closures whose hypergradients are known."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmmlo.engine import ConjugateGradient, Neumann, NotDifferentiableError


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def definite(size, seed):
    root = randn(size, size, seed=seed)
    return root @ root.T / size + torch.eye(size, dtype=torch.float64)


def relative_error(actual, expected):
    return ((actual - expected).norm() / expected.norm()).item()


class TestRidgeRegression:
    """A log-penalty for each feature; w*(penalty) and its derivative are in closed form."""

    x, y, x_val, y_val = randn(40, 6, seed=0), randn(40, seed=1), randn(20, 6, seed=2), randn(20, seed=3)

    def loss(self, log_penalty, lower):
        (w,) = lower
        return (self.x @ w - self.y).square().sum() / 2 + (log_penalty.exp() * w.square()).sum() / 2

    def solution(self, log_penalty):
        return torch.linalg.solve(self.x.T @ self.x + log_penalty.exp().diag(), self.x.T @ self.y)

    def error(self, estimator):
        log_penalty = randn(6, seed=4).requires_grad_()
        outer = (self.x_val @ self.solution(log_penalty) - self.y_val).square().mean()
        (expected,) = torch.autograd.grad(outer, log_penalty)
        w = self.solution(log_penalty).detach().requires_grad_()
        (vector,) = torch.autograd.grad((self.x_val @ w - self.y_val).square().mean(), w)
        (actual,) = estimator.product(lambda lower: self.loss(log_penalty, lower), [w], [log_penalty], [vector])
        return relative_error(actual, expected)

    def test_conjugate_gradient(self):
        assert self.error(ConjugateGradient(steps=10)) < 1e-6

    def test_neumann_converges(self):
        errors = [self.error(Neumann(terms=terms, lr=0.01)) for terms in (1, 5, 20, 80)]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 1e-6 < errors[-2]


class Quadratic(nn.Module):
    """Levels on top of each other: each lower one's solution is linear in the levels that it reads.

    ``reads`` says which: the level ``name`` minimizes w'Hw/2 - w'(sum of M u over the levels u that it reads). The top
    level's loss is the sum over all levels of |w - target|^2 / 2.
    """

    def __init__(self, reads, unit):
        super().__init__()
        names = [*reads, 'top']
        sizes = {name: 3 + position for position, name in enumerate(names)}
        for position, name in enumerate(names):
            setattr(self, name, nn.Parameter(randn(sizes[name], seed=position)))
        self.reads = reads
        self.names = names
        eye = {name: torch.eye(sizes[name], dtype=torch.float64) for name in reads}
        self.hessians = {n: eye[n] if unit else definite(sizes[n], 10 + i) for i, n in enumerate(reads)}
        self.links = {
            (n, r): randn(sizes[n], sizes[r], seed=20 + 7 * i + j)
            for i, n in enumerate(reads)
            for j, r in enumerate(reads[n])
        }
        self.targets = {n: randn(sizes[n], seed=50 + i) for i, n in enumerate(names)}
        self.level_modules = {name: (name,) for name in names}

    def level_loss(self, level, batch, fixed=None):
        w = getattr(self, level)
        if level == 'top':
            return dict(loss=sum((getattr(self, n) - self.targets[n]).square().sum() / 2 for n in self.names))
        pull = sum(self.links[level, read] @ getattr(self, read) for read in self.reads[level])
        return dict(loss=w @ self.hessians[level] @ w / 2 - w @ pull)

    def solutions(self, top):
        values = dict(top=top)
        for name in self.reads:
            pull = sum(self.links[name, read] @ values[read] for read in self.reads[name])
            values[name] = torch.linalg.solve(self.hessians[name], pull)
        return values

    def exact(self):
        """Move every lower level to its solution and differentiate the top loss through the solutions."""
        top = self.top.detach().requires_grad_()
        values = self.solutions(top)
        with torch.no_grad():
            for name in self.reads:
                getattr(self, name).copy_(values[name])
        loss = sum((values[n] - self.targets[n]).square().sum() / 2 for n in self.names)
        return torch.autograd.grad(loss, top)[0]


# Each level reads levels above it. The second one has two paths that meet in `low`, and one level in common to both.
GRAPHS = dict(
    three_levels=(dict(low=['top'], high=['low']), ['low', 'high>low']),
    diamond=(
        dict(low=['top'], left=['low'], right=['low', 'top'], high=['left', 'right']),
        ['low', 'left>low', 'right>low', 'right', 'high>left>low', 'high>right>low', 'high>right'],
    ),
)


def build(graph, unit, hypergradient, steps=1):
    reads, paths = GRAPHS[graph]
    problem = Quadratic(dict(reads), unit)
    order = list(reads)
    sgd = dict(optimizer=dict(type='SGD', lr=0.1))
    levels = {name: dict(sgd, steps=steps) for name in order}
    levels['top'] = dict(sgd, paths=paths, hypergradient=hypergradient)
    wrapper = build_optim_wrapper(
        problem, dict(constructor='mmmlo.MultiLevelOptimWrapperConstructor', levels=levels)
    )
    return problem, wrapper


@pytest.mark.parametrize('graph', GRAPHS)
@pytest.mark.parametrize(
    ('hypergradient', 'unit', 'tolerance'),
    [
        (dict(type='mmmlo.ForwardMode'), True, 1e-12),
        (dict(type='mmmlo.DoubleBackward'), True, 1e-12),
        (dict(type='mmmlo.FiniteDifference'), True, 1e-9),
        (dict(type='mmmlo.ConjugateGradient', steps=20), False, 1e-10),
        (dict(type='mmmlo.Neumann', terms=400, lr=0.2), False, 1e-8),
    ],
    ids=lambda value: value['type'][6:] if isinstance(value, dict) else None,
)
def test_levels_of_quadratics(graph, hypergradient, unit, tolerance):
    problem, wrapper = build(graph, unit, hypergradient)
    expected = problem.exact()
    batches = dict.fromkeys(wrapper.levels)
    (actual,) = wrapper.hypergradient(problem, 'top', None, batches).gradients
    assert relative_error(actual, expected) < tolerance
    if not unit:
        problem, wrapper = build(graph, unit, dict(type='mmmlo.ForwardMode'))
        problem.exact()
        assert relative_error(wrapper.hypergradient(problem, 'top', None, batches)[0][0], expected) > 1e-2


def test_each_edge_is_crossed_once():
    problem, wrapper = build('diamond', True, dict(type='mmmlo.ForwardMode'))
    crossed, traversal = [], wrapper._traversals['top']
    cross = traversal.cross
    traversal.cross = lambda *args: crossed.extend((args[1], upper) for upper in args[2]) or cross(*args)
    wrapper.hypergradient(problem, 'top', None, dict.fromkeys(wrapper.levels))
    assert sorted(crossed) == sorted(set(crossed)) == sorted(traversal.graph.edges)
    assert len(crossed) == 6


def test_plain_modules_train_without_a_runner():
    """No fix_level, parameters for levels, no batches: the top level ends where its exact hypergradient vanishes."""
    solver = dict(type='mmmlo.ConjugateGradient', steps=20)
    problem, wrapper = build('three_levels', False, solver, steps=10)
    before = copy.deepcopy(problem).exact().norm()
    for _ in range(60):
        while 'top' not in (due := wrapper.due()):
            wrapper.update_levels(problem, {level: [None] * count for level, count in due.items()})
        wrapper.update_levels(problem, {level: [None] * count for level, count in due.items()})
    assert wrapper.step_counts == dict(low=600, high=600, top=60)
    assert problem.exact().norm() < 0.1 * before


def test_a_level_that_its_lower_level_does_not_read():
    problem, wrapper = build('three_levels', True, dict(type='mmmlo.ForwardMode'))
    problem.reads = dict(low=[], high=['low'])
    problem.level_loss = lambda level, batch, fixed=None: (
        dict(loss=problem.low.square().sum()) if level == 'low' else Quadratic.level_loss(problem, level, batch)
    )
    with pytest.raises(ValueError, match=r"loss of level 'low' does not depend on any parameter of 'top'"):
        wrapper.hypergradient(problem, 'top', None, dict.fromkeys(wrapper.levels))


def test_a_module_that_cannot_be_differentiated_is_named():
    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.round()

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    class StraightThrough(nn.Module):
        def forward(self, x):
            return Rounded.apply(x)

    problem, wrapper = build('three_levels', True, dict(type='mmmlo.ForwardMode'))
    problem.quantizer = StraightThrough()
    inner = problem.level_loss
    problem.level_loss = lambda level, batch, fixed=None: (
        dict(loss=problem.quantizer(problem.low) @ problem.top[:3]) if level == 'low' else inner(level, batch, fixed)
    )
    with pytest.raises(NotDifferentiableError, match=r'model\.quantizer: StraightThrough: .*FiniteDifference'):
        wrapper.hypergradient(problem, 'top', None, dict.fromkeys(wrapper.levels))
