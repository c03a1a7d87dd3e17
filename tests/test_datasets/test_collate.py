"""Batches that are batches already."""

import torch
from mmengine.dataset import default_collate

from mmmlo.datasets.in_memory_images import GatheredBatch, batch_collate


def test_a_whole_batch_is_what_its_samples_make():
    batch = dict(inputs=torch.arange(12).reshape(3, 4), names=['a', 'b', 'c'])
    gathered = GatheredBatch(batch)
    assert batch_collate(gathered) is batch
    for collate in (default_collate, batch_collate):
        again = collate(list(gathered))
        assert torch.equal(again['inputs'], batch['inputs'])
        assert again['names'] == batch['names']
    assert [sample['names'] for sample in gathered[1:]] == ['b', 'c']
    assert len(gathered) == 3
