"""Peak memory of tensors, for devices whose allocator keeps no statistics."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TensorMemory(TorchDispatchMode):
    """Count the bytes of the tensors that are made inside it and still alive.

    The count, ``peak`` at most, is the same in every run, unlike resident memory, and leaves out what an operation allocates
    and frees within itself. A storage counts once, with its first size; what existed before does not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.peak = 0
        # id -> weak reference, whose callback takes the entry out: an id is another storage's only after that.
        self._storages: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it made."""
        kwargs = kwargs or {}
        if func is torch.ops.aten._efficientzerotensor.default:
            # Zeros without memory, in tangents: with a mode on, operations read the memory all the same (torch 2.13).
            func = torch.ops.aten.zeros.default
        # What this has not seen being made was there before, and may come back as a view of itself.
        for storage in _storages((args, kwargs)):
            self._track(storage, 0)
        result = func(*args, **kwargs)
        for storage in _storages(result):
            self._track(storage, storage.nbytes())
        return result

    def _track(self, storage: torch.UntypedStorage, size: int) -> None:
        key = id(storage)
        if key in self._storages:
            return

        def freed(_: weakref.ref) -> None:
            self.bytes -= size
            del self._storages[key]

        # PyTorch keeps the Python object of a storage as long as the storage itself.
        self._storages[key] = weakref.ref(storage, freed)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)


def _storages(values: Any) -> list[torch.UntypedStorage]:
    """List those of all tensors in an operation's arguments or result."""
    tensors = [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
    # Sparse tensors and the like have no storage of their own; their parts come by as tensors too.
    return [tensor.untyped_storage() for tensor in tensors if tensor.layout == torch.strided]
