"""Score patches by the masking network of MLO-MAE: two linear layers over all patches of an image at once."""

import torch
from mmcv.cnn import build_activation_layer
from torch import nn

from mmmlo.registry import MODELS

from .base import BaseMasker, to_mask_prob


@MODELS.register_module()
class MLPMasker(BaseMasker):
    """Flatten the tokens, one hidden layer, one score a patch, sigmoid (Guo et al., 2025, the masking network T).

    Almost all of its parameters are in the first layer, L * C * ``hidden_dims``: 77 M for ViT-B/16 at 224 px. It serves
    one grid only; :class:`ConvMasker` is small and takes any.

    Args:
        grid (tuple[int, int]): Patches along the height and the width.
        embed_dims (int): Width C of the tokens.
        hidden_dims (int): Width of the hidden layer. Defaults to 512, as released.
        act_cfg (dict): Activation. Defaults to GELU, which is smooth, as finite differences need; the released code has
            ``dict(type='ReLU')``.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        embed_dims: int,
        hidden_dims: int = 512,
        act_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.grid = (grid[0], grid[1])
        self.embed_dims = embed_dims
        length = grid[0] * grid[1]
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(length * embed_dims, hidden_dims),
            build_activation_layer(act_cfg or dict(type='GELU')),
            nn.Linear(hidden_dims, length),
        )

    def forward(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Score the patches; see :meth:`BaseMasker.forward`."""
        return to_mask_prob(self.layers(tokens))
