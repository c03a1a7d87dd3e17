"""Batches that a dataset fetches as a whole."""

from collections.abc import Sequence
from typing import Any

from mmengine.dataset import default_collate

from mmmlo.registry import FUNCTIONS

__all__ = ['GatheredBatch', 'batch_collate']


class GatheredBatch(Sequence):
    """A batch that was fetched as a whole, for whoever collates samples.

    :func:`batch_collate` takes :attr:`batch` as it is; any other collate function finds the samples one by one.

    Args:
        batch (dict): Key -> tensor of B x ..., or a list of B.
    """

    def __init__(self, batch: dict[str, Any]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(next(iter(self.batch.values())))

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        return {key: values[i] for key, values in self.batch.items()}


@FUNCTIONS.register_module()
def batch_collate(data_batch: Sequence) -> Any:
    """mmengine's ``default_collate``, which leaves a batch alone that is one already.

    Args:
        data_batch (Sequence): Samples, or a :class:`GatheredBatch`.

    Returns:
        Any: The batch, as ``default_collate`` makes it of samples.
    """
    return data_batch.batch if isinstance(data_batch, GatheredBatch) else default_collate(data_batch)
