import pytest
import torch

from mmmlo.datasets import ClutteredDigits
from mmmlo.models.selfsup.oracle_mae import patch_worth

MODEL = dict(type='mmmlo.OracleMAE', downstream=None, masker=None)


def samples(batch):
    for i, sample in enumerate(batch['data_samples']):
        worth = torch.zeros(16, 16)
        worth[4:8, : 4 * (1 + i % 3)] = 1  # the first one to three patches of the second row
        sample.set_metainfo(dict(worth=worth.numpy()))
    return batch


def test_patches_of_worth_count_eleven_times(tiny_model, tiny_batch):
    model, batch = tiny_model(**MODEL), samples(tiny_batch(0))
    worth = patch_worth(batch['data_samples'], (4, 4))
    assert worth.sum(dim=1).tolist() == [1, 2, 3, 1, 2, 3] and worth[2, 4:7].tolist() == [1, 1, 1]
    torch.manual_seed(0)
    loss = model.level_loss('pretrain', batch)['loss']
    torch.manual_seed(0)
    mask = (torch.rand_like(worth).argsort(dim=1).argsort(dim=1) >= 4).double()
    tokens, _ = model.backbone.embed(batch['inputs'])
    keep = torch.stack([row.nonzero().flatten() for row in 1 - mask])
    restore = torch.cat([keep, torch.stack([row.nonzero().flatten() for row in mask])], dim=1).argsort(dim=1)
    patch_loss = model.head.patch_loss(model.neck(model.backbone.encode(tokens, keep), restore), batch['inputs'])
    weight = (1 + 10 * worth) * mask
    torch.testing.assert_close(loss, ((weight * patch_loss).sum(dim=1) / weight.sum(dim=1)).mean())


def test_patches_of_worth_are_masked_more_often(tiny_model, tiny_batch, monkeypatch):
    model, batch = tiny_model(choose=True, mask_ratio=0.5, **MODEL), samples(tiny_batch(0))
    masks = []

    def decode_masked(x, ids_keep, ids_masked):
        masks.append(ids_masked)
        return torch.zeros(6, 8, 48, dtype=x.dtype)

    monkeypatch.setattr(model.neck, 'decode_masked', decode_masked)
    for _ in range(30):
        model.level_loss('pretrain', batch)
    count = torch.stack([torch.zeros(6, 16).scatter(1, masked, 1.0) for masked in masks]).mean(dim=0)
    worth = patch_worth(batch['data_samples'], (4, 4))
    assert count[worth == 1].mean() > count[worth == 0].mean() + 0.2


def test_worth_reaches_no_model_unless_the_pipeline_names_it(tiny_model):
    data = ClutteredDigits('test', pipeline=[dict(type='PackInputs')])
    assert 'worth' not in data[0]['data_samples']
    with pytest.raises(ValueError, match="name 'worth' among the meta_keys of PackInputs"):
        patch_worth([data[0]['data_samples']], (4, 4))
