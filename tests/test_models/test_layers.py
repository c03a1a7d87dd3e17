import pytest
import torch
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import build_2d_sincos_position_embedding

from mmmlo.models.layers import SelectiveEncoderLayer, sincos_position_embedding


def make_layers(**kwargs):
    """mmpretrain's layer and ours with the same weights, none of them zero."""
    layers = []
    for _ in range(2):
        torch.manual_seed(0)
        layer = TransformerEncoderLayer(24, 3, 48, norm_cfg=dict(type='LN', eps=1e-6), **kwargs)
        layers.append(layer.double())
    layers[1] = SelectiveEncoderLayer(layers[1])
    for layer in layers:
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return layers


@pytest.mark.parametrize('outputs', [slice(None), slice(0, 1), slice(1, None), slice(3, None)], ids=str)
@pytest.mark.parametrize('kwargs', [{}, dict(qkv_bias=False), dict(layer_scale_init_value=0.1)], ids=str)
def test_equals_mmpretrains_layer(kwargs, outputs):
    theirs, ours = make_layers(**kwargs)
    assert [name for name, _ in theirs.named_parameters()] == [name for name, _ in ours.named_parameters()]
    x = torch.randn(2, 7, 24, dtype=torch.float64, requires_grad=True)
    expected, actual = theirs(x)[:, outputs], ours(x, outputs)
    torch.testing.assert_close(actual, expected)
    weight = torch.randn_like(expected)
    gradients = [
        torch.autograd.grad((y * weight).sum(), [x, *layer.parameters()])
        for layer, y in ((theirs, expected), (ours, actual))
    ]
    torch.testing.assert_close(gradients[1], gradients[0])


def test_takes_over_the_modules_and_their_mode():
    layer = TransformerEncoderLayer(24, 3, 48)
    assert SelectiveEncoderLayer(layer).ffn is layer.ffn
    assert SelectiveEncoderLayer(layer).training
    assert not SelectiveEncoderLayer(layer.eval()).training


def test_drops_out_like_mmpretrains_layer():
    theirs, ours = make_layers(drop_rate=0.3, attn_drop_rate=0.3, drop_path_rate=0.3)
    x = torch.randn(4, 7, 24, dtype=torch.float64)
    outputs = []
    for layer in (theirs, ours):
        torch.manual_seed(2)
        outputs.append(layer(x))
    torch.testing.assert_close(*outputs)
    assert not torch.allclose(outputs[0], theirs.eval()(x))


@pytest.mark.parametrize(('side', 'dims'), [(1, 4), (4, 48), (14, 768)])
def test_equals_mmpretrain_on_squares(side, dims):
    expected = build_2d_sincos_position_embedding(side, dims, cls_token=True)
    actual = sincos_position_embedding((side, side), dims)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize('grid', [(3, 5), (5, 3), (1, 5)])
def test_other_grids_are_crops_of_a_square(grid):
    square = sincos_position_embedding((5, 5), 16)[:, 1:].reshape(5, 5, 16)
    actual = sincos_position_embedding(grid, 16)[:, 1:].reshape(*grid, 16)
    torch.testing.assert_close(actual, square[: grid[0], : grid[1]], rtol=0, atol=0)


def test_the_class_token_has_position_zero_and_the_slowest_wave_is_mae_s():
    embedding = sincos_position_embedding((1, 3), 8)
    assert embedding.shape == (1, 4, 8)
    assert not embedding[:, 0].any()
    expected = torch.tensor([2.0, 0.02])
    torch.testing.assert_close(embedding[0, 3, 4:], torch.cat([expected.sin(), expected.cos()]))


def test_dimensions_must_divide_by_four():
    with pytest.raises(ValueError, match='embed_dims must be a multiple of 4.* got 6'):
        sincos_position_embedding((2, 2), 6)
