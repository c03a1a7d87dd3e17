"""Diagonals in place of the inverse Hessian, from the lower level's optimizer."""

from collections.abc import Sequence

import torch

from mmmlo.utils.errors import SettingError

from .base import Vector


def precondition(
    kind: str,
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[torch.Tensor],
    vector: Vector,
    gradients: Sequence[torch.Tensor | None] | None = None,
) -> list[torch.Tensor]:
    """Multiply a vector by the derivative of the optimizer's last step by its gradient.

    A step moves w by -s(g(w, u)), so w depends on u through ``- ds/dg . d2L/du dw``: with this diagonal in place of the
    inverse Hessian, and all else taken before the step, a hypergradient is that of unrolling it. Clipping and SGD's momentum
    are left out.

    Args:
        kind (str): See :class:`HypergradientEstimator`; 'adam' with bias correction (SAMA, section 3.2, has none).
        optimizer (torch.optim.Optimizer): The lower level's optimizer, after its step.
        parameters (Sequence[torch.Tensor]): Its parameters, or some of them.
        vector (Vector): A tensor for each of them.
        gradients (Sequence[torch.Tensor | None], optional): For 'adam', the gradient of the last step for each of them.

    Raises:
        ValueError: If 'adam' has no gradients.
    """
    if kind == 'identity':
        return list(vector)
    groups = {id(p): group for group in optimizer.param_groups for p in group['params']}
    if kind == 'lr':
        return [groups[id(p)]['lr'] * v for p, v in zip(parameters, vector)]
    if gradients is None:
        raise SettingError("hypergradient.precondition='adam' needs the gradients of the lower level's last step; got none")
    return [
        v * _adam_derivative(groups[id(p)], optimizer.state.get(p, {}), gradient)
        for p, v, gradient in zip(parameters, vector, gradients)
    ]


def check_adam(optimizer: torch.optim.Optimizer) -> None:
    """Check that the 'adam' precondition knows this optimizer's step.

    Raises:
        ValueError: If it is not Adam or AdamW, or has options with another derivative.
    """
    problem = None
    if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        problem = f'the optimizer is {type(optimizer).__name__}'
    elif any(group['amsgrad'] for group in optimizer.param_groups):
        problem = 'amsgrad is on'
    elif not isinstance(optimizer, torch.optim.AdamW) and any(group['weight_decay'] for group in optimizer.param_groups):
        problem = "Adam's weight_decay enters its moments; AdamW's does not"
    if problem:
        raise SettingError(
            "hypergradient.precondition='adam' needs the lower level's optimizer to be AdamW, or Adam without weight_decay, "
            f"and without amsgrad: {problem}. Use precondition='lr' or 'identity'"
        )


def _adam_derivative(group: dict, state: dict, gradient: torch.Tensor | None) -> torch.Tensor:
    """d/dg of lr * m / (sqrt(v) + eps), with m and v bias-corrected and both depending on the last gradient g."""
    if gradient is None or not state:
        # The step left this parameter where it is, whatever its gradient would have been.
        return torch.zeros(())
    beta1, beta2 = group['betas']
    # Optimizers count steps in fp32, in which 1 - beta ** step would lose four digits.
    step = torch.as_tensor(state['step']).double()
    correction1, correction2 = 1 - beta1**step, 1 - beta2**step
    mean = state['exp_avg'] / correction1
    root = (state['exp_avg_sq'] / correction2).sqrt()
    denominator = root + group['eps']
    # At root = 0 every gradient was 0, and so is the second term.
    slope = torch.where(root == 0, torch.zeros_like(root), (1 - beta2) / correction2 * gradient / root)
    return group['lr'] * ((1 - beta1) / correction1 / denominator - mean * slope / denominator**2)
