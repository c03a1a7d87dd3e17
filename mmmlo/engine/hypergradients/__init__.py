from .base import HypergradientEstimator, build_estimator
from .double_backward import DoubleBackward
from .finite_difference import FiniteDifference
from .forward_mode import ForwardMode
from .gauss_newton import ResidualLoss
from .inverse_hessian import ConjugateGradient, InverseHessian, Neumann
from .not_differentiable import NotDifferentiableError
from .paths import LevelGraph
from .preconditioners import check_adam, precondition

__all__ = [
    'ConjugateGradient', 'DoubleBackward', 'FiniteDifference', 'ForwardMode', 'HypergradientEstimator', 'InverseHessian',
    'LevelGraph', 'Neumann', 'NotDifferentiableError', 'ResidualLoss', 'build_estimator', 'check_adam', 'precondition'
]
