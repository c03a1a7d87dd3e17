"""Modules and what wraps them."""

from typing import Any

from mmengine.model import is_model_wrapper

__all__ = ['unwrap']


def unwrap(model: Any) -> Any:
    """Take a model out of the wrapper that trains it in several processes, if it is in one."""
    return model.module if is_model_wrapper(model) else model
