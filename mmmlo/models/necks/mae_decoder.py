"""Decode patches as MAE does, on any (H, W) grid."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models import MAEPretrainDecoder
from mmpretrain.models.utils import resize_pos_embed
from torch import nn

from mmmlo.registry import MODELS

from ..layers import SelectiveEncoderLayer, sincos_position_embedding


@MODELS.register_module()
class GridMAEDecoder(MAEPretrainDecoder):
    """mmpretrain's ``MAEPretrainDecoder`` for a grid that need not be square.

    The grid is a buffer, so a checkpoint tells its own; a checkpoint of another grid loads with its position embedding
    resized. As in :class:`MaskedViT`, a ``Pretrained`` ``init_cfg`` is the last to write the parameters.

    Args:
        grid (tuple[int, int]): Patches along the height and the width. Defaults to (14, 14).
        patch_size (int): Patch size in pixels. Defaults to 16.
        **kwargs: Other arguments of ``MAEPretrainDecoder``, except ``num_patches``, which follows the grid.
    """

    decoder_blocks: nn.ModuleList

    def __init__(self, grid: tuple[int, int] = (14, 14), patch_size: int = 16, **kwargs) -> None:
        super().__init__(num_patches=grid[0] * grid[1], patch_size=patch_size, **kwargs)
        # PyTorch's list, as mmpretrain has it: the blocks are not to draw their weights anew.
        self.decoder_blocks = nn.ModuleList(SelectiveEncoderLayer(block) for block in self.decoder_blocks)
        self.grid_size = (grid[0], grid[1])
        self.embed_dim = self.decoder_embed.in_features
        self.patch_size = patch_size
        self.register_buffer('grid', torch.tensor(self.grid_size))
        self._register_load_state_dict_pre_hook(self._resize_position_embedding)

    def init_weights(self) -> None:
        """Initialize as MAE does, then apply ``init_cfg``, so that a ``Pretrained`` entry has the last word."""
        if not self.is_init:  # a second call applies no init_cfg, so it must not draw anew either
            with torch.no_grad():
                position = sincos_position_embedding(self.grid_size, self.decoder_pos_embed.shape[-1])
                self.decoder_pos_embed.copy_(position)
                nn.init.normal_(self.mask_token, std=0.02)
        # Not MAEPretrainDecoder.init_weights, which takes the grid to be square.
        BaseModule.init_weights(self)

    def _resize_position_embedding(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:
        """Fit a checkpoint of another grid to this one before it is loaded."""
        position = state_dict.get(f'{prefix}decoder_pos_embed')
        if position is not None:
            # Other projects write no grid: MAE's own decoder is always square.
            side = round((position.shape[1] - 1) ** 0.5)
            saved = tuple(state_dict.get(f'{prefix}grid', torch.tensor([side, side])).tolist())
            if saved != self.grid_size:
                state_dict[f'{prefix}decoder_pos_embed'] = resize_pos_embed(position, saved, self.grid_size)
        state_dict[f'{prefix}grid'] = self.grid.detach().clone()

    def decode_masked(self, x: torch.Tensor, ids_keep: torch.Tensor, ids_masked: torch.Tensor) -> torch.Tensor:
        """Predict the pixels of the masked patches from the visible ones.

        They are those of ``forward(x, ids_restore)``, all patches' in order, for less: the patches are not put in order,
        which attention does not ask for, and the last block computes nothing else.

        Args:
            x (torch.Tensor): Encoded class token and visible patches, B x (1 + V) x C.
            ids_keep (torch.Tensor): Indices of the visible patches, B x V, in the order of ``x``.
            ids_masked (torch.Tensor): Indices of the masked patches, B x M.

        Returns:
            torch.Tensor: Predictions in the order of ``ids_masked``, B x M x (patch_size ** 2 * channels).
        """
        visible = ids_keep.shape[1]
        of_cls_token, of_patches = self.decoder_pos_embed[:, :1], self.decoder_pos_embed[0, 1:]  # 1 x 1 x D, L x D
        x = self.decoder_embed(x)  # B x (1 + V) x D
        visible_tokens = x[:, 1:] + F.embedding(ids_keep, of_patches)  # B x V x D
        masked_tokens = self.mask_token + F.embedding(ids_masked, of_patches)  # B x M x D
        x = torch.cat([x[:, :1] + of_cls_token, visible_tokens, masked_tokens], dim=1)  # B x (1 + V + M) x D
        for i, block in enumerate(self.decoder_blocks, start=1):
            x = block(x, slice(1 + visible, None) if i == len(self.decoder_blocks) else slice(None))
        x = x[:, -ids_masked.shape[1] :]  # B x M x D, which are all, unless there is no block
        return self.decoder_pred(self.decoder_norm(x))
