import pytest
import torch
import torch.nn.functional as F

from mmmlo.models import MLPMasker


def tokens(batch=3, length=12, dims=8):
    return torch.randn(batch, length, dims, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(('act_cfg', 'activation'), [(None, F.gelu), (dict(type='ReLU'), F.relu)], ids=['GELU', 'ReLU'])
def test_is_the_papers_network(act_cfg, activation):
    masker = MLPMasker(grid=(2, 6), embed_dims=8, hidden_dims=16, act_cfg=act_cfg).double()
    x = tokens()
    first, second = masker.layers[1], masker.layers[3]
    logits = activation(x.flatten(1) @ first.weight.T + first.bias) @ second.weight.T + second.bias
    actual = masker(None, x, (2, 6))
    assert actual.shape == (3, 12)
    torch.testing.assert_close(actual, 1 / (1 + (-logits).exp()))
    assert actual.min() > 0 and actual.max() < 1


def test_hidden_width_is_512_as_released():
    count = sum(p.numel() for p in MLPMasker(grid=(8, 8), embed_dims=192).parameters())
    assert count == (64 * 192 + 1) * 512 + (512 + 1) * 64
