"""Encode the large images of detection by a vision transformer with window attention."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmpretrain.models.backbones.vit_sam import get_rel_pos
from mmpretrain.models.utils import resize_pos_embed
from mmpretrain.models.utils.attention import MultiheadAttention
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError
from mmmlo.utils.key_report import PretrainedTarget

from .grid_vit import Grid, GridViT

_PADS = ('mask', 'vitdet')


class GridAttention(MultiheadAttention):
    """mmpretrain's attention on grids of tokens, with keys that are left out and relative positions.

    Its parameters have the names of ``MultiheadAttention``. Drop path, ``out_drop``, is left to the caller, who knows which
    grids are windows of one image.

    Args:
        rel_pos_size (tuple[int, int], optional): The (H, W) grid for which relative positions are learned, decomposed into
            rows and columns and zero at first. Other grids interpolate them. Defaults to None: there are none.
        **kwargs: Arguments of mmpretrain's ``MultiheadAttention``.
    """

    def __init__(self, *args, rel_pos_size: Grid | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.has_rel_pos = rel_pos_size is not None
        if rel_pos_size is not None:
            height, width = rel_pos_size
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * height - 1, self.head_dims))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * width - 1, self.head_dims))

    def forward(self, x: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        """Attend within each grid.

        Args:
            x (torch.Tensor): Tokens, B x H x W x C.
            visible (torch.Tensor, optional): Which tokens may be attended to, B x (H * W), of bool. Defaults to None: all.

        Returns:
            torch.Tensor: B x H x W x C.
        """
        count, height, width, _ = x.shape
        qkv = self.qkv(x).reshape(count, height * width, 3, self.num_heads, self.head_dims).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # B x heads x (H * W) x D each
        mask = None if visible is None else visible[:, None, None, :]  # B x 1 x 1 x (H * W)
        if self.has_rel_pos:
            bias = self._rel_pos_bias(query, height, width)
            mask = bias if mask is None else bias.masked_fill(~mask, float('-inf'))
        x = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=self.attn_drop if self.training else 0.0
        )
        x = self.proj(x.transpose(1, 2).reshape(count, height, width, self.embed_dims))
        return self.gamma1(self.proj_drop(x))

    def _rel_pos_bias(self, query: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Compute what relative positions add to logits, B x heads x (H * W) x (H * W); MViTv2 (Li et al., 2022), 4.1."""
        rows = get_rel_pos(height, height, self.rel_pos_h).to(query.dtype)  # H x H x D
        columns = get_rel_pos(width, width, self.rel_pos_w).to(query.dtype)  # W x W x D
        grid = query.unflatten(2, (height, width))
        by_row = torch.einsum('bnhwc,hkc->bnhwk', grid, rows)  # B x heads x H x W x H
        by_column = torch.einsum('bnhwc,wkc->bnhwk', grid, columns)  # B x heads x H x W x W
        return (by_row[..., :, None] + by_column[..., None, :]).flatten(4).flatten(2, 3)


def _grid_attention(old: MultiheadAttention, rel_pos_size: Grid | None) -> GridAttention:
    """Put attention on grids around the modules of another."""
    new = GridAttention(
        old.embed_dims, old.num_heads, attn_drop=old.attn_drop, qkv_bias=old.qkv.bias is not None, rel_pos_size=rel_pos_size
    )
    for name in ('qkv', 'proj', 'proj_drop', 'out_drop', 'gamma1'):
        setattr(new, name, getattr(old, name))
    return new


@MODELS.register_module()
class WindowedViT(GridViT):
    """ViTDet's backbone (Li et al., 2022, section 3): mmpretrain's ``VisionTransformer`` with most attention in windows.

    A few blocks, evenly spaced, attend to the whole image; the others within windows that do not overlap. Parameters have
    the names and shapes of ``VisionTransformer``, so that ``backbone.*`` of a pretrained checkpoint loads as it is: the
    class token and its row of the position embedding are dropped, the other rows are resized to the grid. When a window
    covers the grid, the features are those of ``VisionTransformer(with_cls_token=False, out_type='featmap')``.

    Args:
        arch (str | dict): Architecture, as in ``VisionTransformer``. Defaults to 'base'.
        img_size (int | tuple[int, int]): Image size in pixels, (H, W) or one number; others are taken too, with resized
            positions. Defaults to 1024.
        patch_size (int): Patch size in pixels. Defaults to 16.
        window_size (int): Side of a window in patches. On a smaller grid the window ends where the grid does. Defaults
            to 14, as in ViTDet.
        global_blocks (int | Sequence[int]): Blocks that attend to the whole image: how many, evenly spaced and the last
            among them, or their indices from 0. Defaults to 4.
        pad (str): What a window sees beyond the border of the grid. 'mask': nothing. 'vitdet': zeros after the norm, whose
            keys are the bias of the projection; so it is in ViTDet. Defaults to 'mask'.
        rel_pos (bool): Whether attention has relative positions, decomposed and zero at first, as in ViTDet. They make
            PyTorch's attention slower. Defaults to False.
        with_cp (bool): Activation checkpointing: blocks are computed again in the backward pass. Defaults to False.
        out_indices (int | Sequence[int]): Blocks whose features are returned. Defaults to -1, the last one.
        **kwargs: Other arguments of ``VisionTransformer``.

    Raises:
        SettingError: The window, the global blocks or ``pad`` are not possible.
    """

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | Grid = 1024,
        patch_size: int = 16,
        window_size: int = 14,
        global_blocks: int | Sequence[int] = 4,
        pad: str = 'mask',
        rel_pos: bool = False,
        with_cp: bool = False,
        out_indices: int | Sequence[int] = -1,
        **kwargs,
    ) -> None:
        if not isinstance(window_size, int) or window_size < 1:
            raise SettingError(f'model.backbone.window_size must be at least 1 patch, got {window_size!r}')
        if pad not in _PADS:
            raise SettingError(f"model.backbone.pad must be 'mask' or 'vitdet', got {pad!r}")
        super().__init__(
            arch=arch,
            img_size=img_size,
            patch_size=patch_size,
            out_indices=out_indices,
            out_type='featmap',
            with_cls_token=False,
            **kwargs,
        )
        self.patch_size = patch_size
        self.window_size = window_size
        self.pad = pad
        self.with_cp = with_cp
        self.global_blocks = _global_blocks(global_blocks, self.num_layers)
        for index, layer in enumerate(self.layers):
            layer.attn = _grid_attention(layer.attn, self._window(index, self.grid_size) if rel_pos else None)
        if self.frozen_stages > 0:  # once more, for the attention that was put in
            self._freeze_stages()

    @property
    def pretrained_target(self) -> PretrainedTarget:
        """PretrainedTarget: Relative positions and layer scales may be new; the class token, and a norm that is not there,
        are left."""
        new = {'layers.*.attn.rel_pos_*': 0.0, 'layers.*.gamma*.weight': 1.0, 'grid': None}
        return PretrainedTarget(new, ('cls_token', *(() if self.final_norm else ('ln1.*', ))))

    def _window(self, index: int, grid: Grid) -> Grid:
        """Choose the (H, W) window of a block on a grid."""
        return grid if index in self.global_blocks else (min(self.window_size, grid[0]), min(self.window_size, grid[1]))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute feature maps.

        Args:
            x (torch.Tensor): Images, B x 3 x H x W. A border that does not fill a patch is padded.

        Returns:
            tuple[torch.Tensor]: One for each of ``out_indices``, B x C x H / patch x W / patch.
        """
        tokens, grid = self.patch_embed(x)  # B x L x C
        position = resize_pos_embed(
            self.pos_embed, self.patch_resolution, grid, mode=self.interpolate_mode, num_extra_tokens=0
        )
        x = self.pre_norm(self.drop_after_pos(tokens + position)).unflatten(1, tuple(grid))  # B x H x W x C
        outs = []
        for index in range(self.num_layers):
            if self.with_cp and x.requires_grad:
                x = checkpoint(self._block, index, x, use_reentrant=False)
            else:
                x = self._block(index, x)
            if index == self.num_layers - 1 and self.final_norm:
                x = self.ln1(x)
            if index in self.out_indices:
                outs.append(x.permute(0, 3, 1, 2).contiguous())
        return tuple(outs)

    def _block(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """Compute a block, B x H x W x C to the same."""
        layer = self.layers[index]
        grid = (x.shape[1], x.shape[2])
        window = self._window(index, grid)
        normed = layer.ln1(x)
        if window == grid:
            attended = layer.attn(normed)
        else:
            visible = None
            if self.pad == 'mask' and (grid[0] % window[0] or grid[1] % window[1]):
                ones = torch.ones(1, *grid, 1, dtype=torch.bool, device=x.device)
                visible = partition(ones, window).flatten(1).repeat(len(x), 1)  # (B * windows) x (h * w)
            attended = unpartition(layer.attn(partition(normed, window), visible), window, grid)
        # Paths are dropped for images, not for windows.
        x = x + layer.attn.out_drop(attended)
        return layer.ffn(layer.ln2(x), identity=x)


def partition(x: torch.Tensor, window: Grid) -> torch.Tensor:
    """Cut grids, B x H x W x C, into windows, (B * windows) x h x w x C, row by row, with 0 beyond the border."""
    (height, width), channels = window, x.shape[-1]
    x = F.pad(x, (0, 0, 0, -x.shape[2] % width, 0, -x.shape[1] % height))
    x = x.unflatten(2, (-1, width)).unflatten(1, (-1, height))  # B x rows x h x columns x w x C
    return x.transpose(2, 3).reshape(-1, height, width, channels)


def unpartition(windows: torch.Tensor, window: Grid, grid: Grid) -> torch.Tensor:
    """Put windows, (B * windows) x h x w x C, together again, B x H x W x C, without what is beyond the border."""
    rows, columns = -(-grid[0] // window[0]), -(-grid[1] // window[1])
    x = windows.unflatten(0, (-1, rows, columns)).transpose(2, 3)  # B x rows x h x columns x w x C
    return x.flatten(3, 4).flatten(1, 2)[:, : grid[0], : grid[1]]


def _global_blocks(blocks: int | Sequence[int], depth: int) -> frozenset[int]:
    if isinstance(blocks, int):
        if not 0 <= blocks <= depth:
            raise SettingError(
                f'model.backbone.global_blocks must be from 0 to the {depth} blocks of the model, got {blocks}'
            )
        return frozenset(depth * (i + 1) // blocks - 1 for i in range(blocks))
    found = frozenset(index + depth if index < 0 else index for index in blocks)
    if not all(0 <= index < depth for index in found):
        raise SettingError(f'model.backbone.global_blocks names blocks from 0 to {depth - 1}, got {list(blocks)}')
    return found
