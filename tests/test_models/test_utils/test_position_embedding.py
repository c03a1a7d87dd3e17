import pytest
import torch
from mmpretrain.models.utils import build_2d_sincos_position_embedding

from mmmlo.models.utils import sincos_position_embedding


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
