"""Encode the large images of detection by a vision transformer with window attention."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmpretrain.models.utils import resize_pos_embed
from mmpretrain.models.utils.attention import MultiheadAttention
from torch.utils.checkpoint import checkpoint

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError
from mmmlo.utils.key_report import PretrainedTarget

from .grid_vit import Grid, GridViT


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
        window_size (int): Side of a window in patches. On a smaller grid the window ends where the grid does, and nobody
            attends to what is beyond the border. Defaults to 14, as in ViTDet.
        global_blocks (int): How many blocks attend to the whole image. The last one is among them. Defaults to 4.
        with_cp (bool): Activation checkpointing: blocks are computed again in the backward pass. Defaults to False.
        out_indices (int | Sequence[int]): Blocks whose features are returned. Defaults to -1, the last one.
        **kwargs: Other arguments of ``VisionTransformer``.

    Raises:
        SettingError: There is no such window, or there are fewer blocks.
    """

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | Grid = 1024,
        patch_size: int = 16,
        window_size: int = 14,
        global_blocks: int = 4,
        with_cp: bool = False,
        out_indices: int | Sequence[int] = -1,
        **kwargs,
    ) -> None:
        if not isinstance(window_size, int) or window_size < 1:
            raise SettingError(f'model.backbone.window_size must be at least 1 patch, got {window_size!r}')
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
        self.with_cp = with_cp
        depth = self.num_layers
        if global_blocks not in range(depth + 1):
            raise SettingError(
                f'model.backbone.global_blocks must be from 0 to the {depth} blocks of the model, got {global_blocks}'
            )
        self.global_blocks = {depth * (i + 1) // global_blocks - 1 for i in range(global_blocks)}

    @property
    def pretrained_target(self) -> PretrainedTarget:
        """PretrainedTarget: Layer scales may be new; the class token, and a norm that is not there, are left."""
        left = ('cls_token',) if self.final_norm else ('cls_token', 'ln1.*')
        return PretrainedTarget({'layers.*.gamma*.weight': 1.0, 'grid': None}, left)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute feature maps of images, B x 3 x H x W, whose border is padded where it does not fill a patch.

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
        window = grid if index in self.global_blocks else (min(self.window_size, grid[0]), min(self.window_size, grid[1]))
        visible = None
        if grid[0] % window[0] or grid[1] % window[1]:
            ones = torch.ones(1, *grid, 1, dtype=torch.bool, device=x.device)
            visible = partition(ones, window).flatten(1).repeat(len(x), 1)  # (B * windows) x (h * w)
        attended = unpartition(_attend(layer.attn, partition(layer.ln1(x), window), visible), window, grid)
        # Paths are dropped for images, not for windows.
        x = x + layer.attn.out_drop(attended)
        return layer.ffn(layer.ln2(x), identity=x)


def _attend(attn: MultiheadAttention, x: torch.Tensor, visible: torch.Tensor | None) -> torch.Tensor:
    """Attend within each grid, B x H x W x C, to the tokens of ``visible``, B x (H * W); all but the drop path."""
    qkv = attn.qkv(x.flatten(1, 2)).unflatten(-1, (3, attn.num_heads, attn.head_dims))  # B x (H * W) x 3 x heads x D
    query, key, value = qkv.permute(2, 0, 3, 1, 4)  # B x heads x (H * W) x D each
    mask = None if visible is None else visible[:, None, None, :]  # B x 1 x 1 x (H * W)
    dropout = attn.attn_drop if attn.training else 0.0
    attended = attn.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    return attn.gamma1(attn.proj_drop(attn.proj(attended.transpose(1, 2).reshape(x.shape))))


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
