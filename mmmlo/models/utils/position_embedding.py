"""Embed positions on any (H, W) grid by sines and cosines."""

import torch

from mmmlo.utils.errors import SettingError


def sincos_position_embedding(grid: tuple[int, int], embed_dims: int) -> torch.Tensor:
    """Build the fixed position embedding of MAE (He et al., 2022) for a grid that need not be square.

    On a square grid it equals ``mmpretrain.models.utils.build_2d_sincos_position_embedding``. On other grids mmpretrain's
    function runs through the patches column by column, while the patch embedding emits them row by row.

    Args:
        grid (tuple[int, int]): Patches along the height and the width.
        embed_dims (int): Embedding dimensions C, a multiple of 4.

    Returns:
        torch.Tensor: 1 x (1 + H * W) x C, with a zero row for the class token first.

    Raises:
        SettingError: ``embed_dims`` is not a multiple of 4.
    """
    if embed_dims % 4:
        raise SettingError(
            f'embed_dims must be a multiple of 4 for a 2-D sine-cosine position embedding, got {embed_dims}'
        )
    height, width = grid
    omega = 10000.0 ** (-torch.arange(embed_dims // 4, dtype=torch.float64) / (embed_dims // 4))
    row, column = torch.meshgrid(
        torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing='ij'
    )
    row, column = row.reshape(-1, 1) * omega, column.reshape(-1, 1) * omega  # (H * W) x C/4 each
    embedding = torch.cat([row.sin(), row.cos(), column.sin(), column.cos()], dim=1).float()  # (H * W) x C
    return torch.cat([torch.zeros(1, embed_dims), embedding])[None]
