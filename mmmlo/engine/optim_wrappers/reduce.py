"""Averages over processes."""

from collections.abc import Iterable

import torch
from mmengine.dist import all_reduce, get_world_size


def reduce_mean(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Average tensors over all processes, in one message; a no-op in a single process.

    Args:
        tensors (Iterable[torch.Tensor]): Tensors of one dtype and device, the same shapes on every process.

    Returns:
        list[torch.Tensor]: The averages, in the given order.
    """
    tensors = list(tensors)
    if get_world_size() == 1 or not tensors:
        return tensors
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    all_reduce(flat, op='mean')
    return [part.view_as(tensor) for part, tensor in zip(flat.split([t.numel() for t in tensors]), tensors)]
