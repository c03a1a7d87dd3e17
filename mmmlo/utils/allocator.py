"""Memory that a CPU run keeps in place of giving it back to the system in every step."""

import ctypes
import os

import torch

# Parameters of glibc's mallopt(3), and the values that tools/env.sh sets for what the launchers start.
_SETTINGS = {'MALLOC_MMAP_MAX_': (-4, 0), 'MALLOC_TRIM_THRESHOLD_': (-1, -1), 'MALLOC_TOP_PAD_': (-2, 256 * 2**20)}


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for the process, where no GPU does the work.

    A training step on a CPU allocates and frees the same large tensors again and again. By default glibc maps and unmaps
    them each time, and clearing their pages costs up to a third of the time. Settings in the environment are left alone.

    Returns:
        bool: Whether anything was set: nothing is beside a GPU, or with a C library that has no ``mallopt``.
    """
    if torch.cuda.is_available():
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if os.name == 'posix' else None
    if mallopt is None:
        return False
    wanted = [setting for name, setting in _SETTINGS.items() if name not in os.environ]
    return bool(wanted) and all([mallopt(parameter, value) for parameter, value in wanted])
