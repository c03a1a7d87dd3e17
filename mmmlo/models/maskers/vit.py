"""Score patches by the masking module of CL-MAE: a small vision transformer on the autoencoder's tokens."""

import torch
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from ..layers import SelectiveEncoderLayer
from .base import BaseMasker, centered, to_mask_prob

_HEADS = ('mlp', 'linear', 'token')


@MODELS.register_module()
class ViTMasker(BaseMasker):
    """Pre-norm transformer blocks with their own class token, a head, sigmoid (Madan et al., 2024, the masking module).

    It shares the patch embedding with the autoencoder, not its blocks; 36 M parameters beside ViT-B/16 at 224 px.

    The released module returns the weight by which a patch is *kept*. Here the scores are the probability that it is
    *masked*, so the released keep weight is 1 - ``mask_prob``, and with ``head='linear'`` released weights serve after
    these changes:

    ======================================  ==========================================================
    released, under ``masking_net.``        here
    ======================================  ==========================================================
    ``cls_token``, ``pos_embed``            ``cls_token``, their sum
    ``blocks.N.norm1``, ``norm2``           ``layers.N.ln1``, ``ln2``
    ``blocks.N.attn``                       ``layers.N.attn``
    ``blocks.N.mlp.fc1``, ``fc2``           ``layers.N.ffn.layers.0.0``, ``ffn.layers.1``
    ``mlp_head.0``                          ``norm``
    ``mlp_head.1``                          ``head``, weight and bias negated
    ======================================  ==========================================================

    The released module adds a position embedding to its class token, which starts at zero and is in no optimizer.

    Args:
        embed_dims (int): Width C of the tokens, the backbone's.
        grid (tuple[int, int], optional): Patches along the height and the width, for the heads on the class token.
            ``head='token'`` serves every grid and keeps none.
        depth (int): Number of blocks. Defaults to 5, as released.
        num_heads (int): Attention heads. Defaults to 4, as released.
        mlp_ratio (float): Width of a block's hidden layer over C. Defaults to 4, as released.
        head (str): What turns tokens into scores. Defaults to 'mlp'.

            - 'mlp': from the class token to a score for each patch by a hidden layer of width C, GELU and a linear layer, as
              in the paper's figure, which tells no width;
            - 'linear': from the class token by a linear layer alone, as in the released code;
            - 'token': from each patch's own token by a linear layer. Ours, for any grid.
        centered (bool): Whether an image's mean is subtracted from its logits, for :class:`mmmlo.models.AdaMAE` and
            :class:`mmmlo.models.AutoMAE`, where only differences count. Defaults to False.

    Raises:
        SettingError: There is no such head, one on the class token has no grid, or ``num_heads`` does not divide C.
    """

    full_precision = False

    def __init__(
        self,
        embed_dims: int,
        grid: tuple[int, int] | None = None,
        depth: int = 5,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        head: str = 'mlp',
        centered: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if head not in _HEADS:
            raise SettingError(f'model.masker.head must be one of {", ".join(map(repr, _HEADS))}, got {head!r}')
        if embed_dims % num_heads:
            raise SettingError(
                f'model.masker.embed_dims {embed_dims} is not a multiple of model.masker.num_heads {num_heads}; '
                'set a number of heads that divides it'
            )
        norm_cfg = dict(type='LN', eps=1e-5)  # as released; the autoencoder's have 1e-6
        self.embed_dims, self.centered = embed_dims, centered
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.layers = nn.ModuleList(
            SelectiveEncoderLayer(
                TransformerEncoderLayer(embed_dims, num_heads, int(mlp_ratio * embed_dims), norm_cfg=norm_cfg)
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dims, eps=1e-5)
        self.head: nn.Module
        if head == 'token':
            self.head = nn.Linear(embed_dims, 1)
            return
        if grid is None:
            raise SettingError(
                f'model.masker.grid is missing: head={head!r} gives each patch of one grid an output of its own; set the '
                "backbone's grid, or model.masker.head='token', which serves any"
            )
        self.grid = (grid[0], grid[1])
        projection = nn.Linear(embed_dims, grid[0] * grid[1])
        if head == 'linear':
            self.head = projection
        else:
            self.head = nn.Sequential(nn.Linear(embed_dims, embed_dims), nn.GELU(), projection)

    def init_weights(self) -> None:
        """Initialize as the released code does, then apply ``init_cfg``, so that a ``Pretrained`` entry has the last word.

        The blocks draw their MLPs once more, from the same distribution but for biases of 1e-6 in place of zero.
        """
        if not self.is_init:  # a second call applies no init_cfg, so it must not draw anew either
            nn.init.normal_(self.cls_token, std=0.02)
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight)
                    nn.init.zeros_(module.bias)
        super().init_weights()

    def forward(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Score the patches; see :meth:`BaseMasker.forward`."""
        x = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)  # B x (1 + L) x C
        # The last layer computes what the head reads.
        outputs = slice(1, None) if self.grid is None else slice(0, 1)
        for i, layer in enumerate(self.layers, start=1):
            x = layer(x, outputs if i == len(self.layers) else slice(None))
        logits = self.head(self.norm(x))  # B x L x 1 of tokens, B x 1 x L of the class token
        logits = logits.squeeze(-1 if self.grid is None else 1)  # B x L
        return to_mask_prob(centered(logits) if self.centered else logits)
