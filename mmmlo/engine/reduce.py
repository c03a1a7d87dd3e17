"""Averages over processes."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import distributed

from mmmlo.utils.errors import UnsupportedError


def reduce_mean(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Average tensors of one dtype and device over all processes, in one message; a no-op in a single process."""
    tensors = list(tensors)
    if get_world_size() == 1 or not tensors:
        return tensors
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    all_reduce(flat, op='mean')
    return [part.view_as(tensor) for part, tensor in zip(flat.split([t.numel() for t in tensors]), tensors)]


class UsageCheck:
    """Checks that all processes, in all steps, have a gradient for the same parameters.

    One that only some processes have would move their copies of the parameter apart, or make their messages differ in size.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._before: list[bool] | None = None

    def __call__(self, parameters: Iterable[torch.Tensor], used: list[bool]) -> None:
        """Compare; with other processes in the first call only.

        Raises:
            RuntimeError: If processes or steps differ.
        """
        if get_world_size() == 1 or used == self._before:
            return
        parameters = list(parameters)
        if self._before is None:
            share = torch.tensor(used, dtype=torch.float32, device=parameters[0].device)
            all_reduce(share, op='mean')
            what, differing = 'processes', [i for i, value in enumerate(share.tolist()) if value not in (0.0, 1.0)]
        else:
            what, differing = 'steps', [i for i, pair in enumerate(zip(used, self._before)) if pair[0] != pair[1]]
        if differing:
            raise UnsupportedError(
                f'level {self.name}: {what} differ in whether its loss reaches {len(differing)} of the parameters, the '
                f'first one of shape {tuple(parameters[differing[0]].shape)}; in distributed training a loss must '
                'reach the same parameters on every process and in every step'
            )
        self._before = used


@dataclass
class _Bucket:
    """Parameters whose gradients travel in one message."""

    parameters: list[torch.nn.Parameter] = field(default_factory=list)
    bytes: int = 0
    missing: int = 0
    flat: Any = None
    work: Any = None


class GradientReducer:
    """Averages the ``.grad`` of a level's parameters over processes, in buckets, while the backward pass still runs.

    Inside :meth:`overlapped` each bucket is sent as soon as a backward pass has accumulated the last of its gradients, as
    in PyTorch's ``DistributedDataParallel``; :meth:`finish` sends what is left and waits. PyTorch's own reducer cannot be
    used: it belongs to one module with one forward and one loss. In a single process this does nothing.

    Args:
        parameters (Sequence[nn.Parameter]): The parameters, in the order of the forward pass; the same on every process.
        name (str): The level, for messages.
        bucket_cap_mb (float): Size of a bucket in MiB. Defaults to 25.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], name: str, bucket_cap_mb: float = 25.0) -> None:
        self.world_size = get_world_size()
        self._active = False
        self._next = 0
        self._check = UsageCheck(repr(name))
        self._parameters = list(parameters)
        self._buckets: list[_Bucket] = []
        self._bucket_of: dict[int, _Bucket] = {}
        if self.world_size == 1:
            return
        bucket = _Bucket()
        for parameter in reversed(self._parameters):  # a backward pass reaches the last parameters first
            size = parameter.numel() * parameter.element_size()
            last = bucket.parameters[-1:]
            if not last or last[0].dtype != parameter.dtype or bucket.bytes + size > bucket_cap_mb * 2**20:
                bucket = _Bucket()
                self._buckets.append(bucket)
            bucket.parameters.append(parameter)
            bucket.bytes += size
            self._bucket_of[id(parameter)] = bucket
            parameter.register_post_accumulate_grad_hook(self._after_gradient)

    @contextmanager
    def overlapped(self) -> Iterator[None]:
        """Send buckets while the backward pass inside runs: the last one before the gradients are used."""
        for bucket in self._buckets:
            bucket.missing = len(bucket.parameters)
        self._active = True
        try:
            yield
        finally:
            self._active = False

    def _after_gradient(self, parameter: torch.nn.Parameter) -> None:
        if not self._active:
            return
        self._bucket_of[id(parameter)].missing -= 1
        # Every process must send the buckets in the same order, whatever the order of its gradients.
        while self._next < len(self._buckets) and not self._buckets[self._next].missing:
            self._send_next()

    def _send_next(self) -> None:
        bucket = self._buckets[self._next]
        self._next += 1
        gradients = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in bucket.parameters
        ]
        bucket.flat = torch.cat([gradient.reshape(-1) for gradient in gradients]).div_(self.world_size)
        bucket.work = distributed.all_reduce(bucket.flat, async_op=True)

    def finish(self) -> None:
        """Send what has not been sent, wait, and put the averages in place.

        Raises:
            RuntimeError: If processes, or steps, differ in which parameters have a gradient.
        """
        if self.world_size == 1:
            return
        while self._next < len(self._buckets):
            self._send_next()
        self._next = 0
        self._check(self._parameters, [parameter.grad is not None for parameter in self._parameters])
        for bucket in self._buckets:
            bucket.work.wait()
            parts = bucket.flat.split([parameter.numel() for parameter in bucket.parameters])
            for parameter, part in zip(bucket.parameters, parts):
                if parameter.grad is not None:
                    parameter.grad = part.view_as(parameter)
            bucket.work = bucket.flat = None
