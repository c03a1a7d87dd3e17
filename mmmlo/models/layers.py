"""Parts of vision transformers that encoder, decoder and masker share."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer

from mmmlo.utils.errors import SettingError

__all__ = ['SelectiveEncoderLayer', 'TransformerEncoderLayer', 'sincos_position_embedding']


class SelectiveEncoderLayer(TransformerEncoderLayer):
    """mmpretrain's encoder layer, for all tokens or for some of them.

    A model's last layer need not compute tokens that are not read: with the class token alone, what is left of it are the
    keys and values, a sixth of its operations. Queries, keys and values are separated so that the backward pass writes
    their gradients once; mmpretrain's indexing makes it fill and add up three tensors of the full size.

    It takes over another layer's modules, and with them names and initialization.

    Args:
        layer (TransformerEncoderLayer): The layer. It is not to be used any more.
    """

    def __init__(self, layer: TransformerEncoderLayer) -> None:
        BaseModule.__init__(self, layer.init_cfg)
        self.embed_dims = layer.embed_dims
        self.ln1, self.attn, self.ln2, self.ffn = layer.ln1, layer.attn, layer.ln2, layer.ffn
        self.train(layer.training)

    def forward(self, x: torch.Tensor, outputs: slice = slice(None)) -> torch.Tensor:  # noqa: B008 - not changed
        """Compute the layer of tokens, B x L x C, for those of ``outputs``, B x O x C; all attend to all."""
        attended = self._attend(self.ln1(x), outputs)
        x = (x if outputs == slice(None) else x[:, outputs]) + attended
        return self.ffn(self.ln2(x), identity=x)

    def _attend(self, x: torch.Tensor, outputs: slice) -> torch.Tensor:
        attn = self.attn

        def heads(projected: torch.Tensor, kinds: int) -> tuple[torch.Tensor, ...]:
            split = projected.unflatten(-1, (kinds, attn.num_heads, attn.head_dims))
            return tuple(part.transpose(1, 2) for part in split.unbind(2))

        if outputs == slice(None):
            query, key, value = heads(attn.qkv(x), 3)
        else:
            weight, bias = attn.qkv.weight, attn.qkv.bias
            sizes = [attn.embed_dims, 2 * attn.embed_dims]
            (of_query, of_others), biases = weight.split(sizes), (None, None) if bias is None else bias.split(sizes)
            (query,) = heads(F.linear(x[:, outputs], of_query, biases[0]), 1)
            key, value = heads(F.linear(x, of_others, biases[1]), 2)
        dropout = attn.attn_drop if attn.training else 0.0
        x = attn.scaled_dot_product_attention(query, key, value, dropout_p=dropout)  # B x heads x O x D
        x = attn.proj(x.transpose(1, 2).flatten(2))
        return attn.out_drop(attn.gamma1(attn.proj_drop(x)))


def sincos_position_embedding(grid: tuple[int, int], embed_dims: int) -> torch.Tensor:
    """Build the fixed position embedding of MAE (He et al., 2022) for a grid that need not be square.

    On a square grid it equals ``mmpretrain.models.utils.build_2d_sincos_position_embedding``. On other grids mmpretrain's
    function runs through the patches column by column, while the patch embedding emits them row by row.

    Args:
        grid (tuple[int, int]): Patches along the height and the width.
        embed_dims (int): Embedding dimensions C, a multiple of 4.

    Returns:
        torch.Tensor: 1 x (1 + H * W) x C, with a zero row for the class token first.
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
