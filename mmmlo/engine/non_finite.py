"""What there is to say and to keep when a loss or a gradient is not finite."""

import random
from typing import Any

import numpy as np
import torch

__all__ = ['NonFiniteError', 'random_state', 'set_random_state']


class NonFiniteError(RuntimeError):
    """Too many steps in a row were left out because a loss or a gradient was not finite."""


def random_state(device: torch.device) -> dict[str, Any]:
    """Where the random generators of this process stand. Nothing waits for the device.

    Args:
        device (torch.device): The device of the model.

    Returns:
        dict[str, Any]: The states of Python's, NumPy's and PyTorch's generators, of types that a checkpoint may hold.
    """
    state = dict(python=random.getstate(), numpy=np.random.get_state(), cpu=torch.get_rng_state())
    if device.type == 'cuda':
        state['cuda'] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put the random generators back to where :func:`random_state` found them.

    Args:
        state (dict[str, Any]): What it returned.
        device (torch.device): The device of the model; one of another kind draws other numbers.
    """
    random.setstate(state['python'])
    np.random.set_state(state['numpy'])
    torch.set_rng_state(state['cpu'])
    if device.type == 'cuda' and 'cuda' in state:
        torch.cuda.set_rng_state(state['cuda'], device)
