from .base import HypergradientEstimator, LossFunction, SecondDerivatives, build_estimator
from .conjugate_gradient import ConjugateGradient
from .double_backward import DoubleBackward
from .finite_difference import FiniteDifference
from .forward_mode import ForwardMode
from .inverse_hessian import InverseHessian
from .neumann import Neumann
from .not_differentiable import NotDifferentiableError
from .paths import LevelGraph
from .preconditioners import check_adam, precondition

__all__ = [
    'ConjugateGradient', 'DoubleBackward', 'FiniteDifference', 'ForwardMode', 'HypergradientEstimator', 'InverseHessian',
    'LevelGraph', 'LossFunction', 'Neumann', 'NotDifferentiableError', 'SecondDerivatives', 'build_estimator', 'check_adam',
    'precondition'
]
