"""Learn one ridge penalty for each feature from the validation loss, with nothing but the estimators and closures.

Lower level: ridge regression, w*(u) = argmin over w of  mean (x w - y)^2 + sum exp(u) w^2.
Upper level: the log-penalties u, one for each feature, minimize the validation loss F(w*(u)).
w* has a closed form here, so plain autograd knows the exact hypergradient dF/du, and each estimator is compared with it.

    python docs/examples/ridge_hyperparameters.py [SEED]
"""
import sys

import torch
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import PolynomialFeatures, scale

from mmmlo.engine import ConjugateGradient, DoubleBackward, Neumann

seed = int(sys.argv[1]) if len(sys.argv) > 1 else 0
inputs, target = load_diabetes(return_X_y=True)
# Squares and products of the ten measurements: 65 features for 150 training samples, so that the penalties matter.
x = torch.tensor(scale(PolynomialFeatures(2, include_bias=False).fit_transform(scale(inputs))))
y = torch.tensor(scale(target))
train, valid, test = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).split([150, 150, 142])
log_penalty = torch.full((x.shape[1],), -3.0, dtype=x.dtype, requires_grad=True)


def squared_error(w, samples):
    return (x[samples] @ w - y[samples]).square().mean()


def lower_loss(parameters):
    """What an estimator differentiates: the lower loss as a function of the lower parameters. It reads log_penalty."""
    return squared_error(parameters[0], train) + (log_penalty.exp() * parameters[0].square()).sum()


def solution():
    gram = x[train].T @ x[train] / len(train)
    return torch.linalg.solve(gram + log_penalty.exp().diag(), x[train].T @ y[train] / len(train))


def hypergradient(estimator):
    """dF/du = - d2L/du dw . H^-1 . dF/dw. The estimator needs w at the solution, not the way in which it was found."""
    w = solution().detach().requires_grad_()
    vector = torch.autograd.grad(squared_error(w, valid), [w])
    return estimator.product(lower_loss, [w], [log_penalty], vector)[0]


exact, = torch.autograd.grad(squared_error(solution(), valid), log_penalty)
for name, estimator in [('identity', DoubleBackward()), ('200 Neumann terms', Neumann(terms=200, lr=0.05)),
                        *((f'{steps} CG steps', ConjugateGradient(steps)) for steps in (5, 20, 100))]:
    error = (hypergradient(estimator) - exact).norm() / exact.norm()
    print(f'{name} for the inverse Hessian: relative error {error:.1e}')

optimizer = torch.optim.Adam([log_penalty], lr=0.1)
for step in range(101):
    w = solution().detach()
    if step % 25 == 0:
        print(f'step {step}: validation loss {squared_error(w, valid):.4f}, test loss {squared_error(w, test):.4f}')
    log_penalty.grad = hypergradient(ConjugateGradient(steps=100))
    optimizer.step()
