"""Score patches by an attention that learns, from labels, which of them tell the label."""

from typing import Any

import torch
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from .base import BaseMasker, to_mask_prob


class _ResidualBlock(nn.Module):
    """Norm and two layers on each patch alone, added to the input, B x L x C."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(dims), nn.Linear(dims, 2 * dims), nn.GELU(), nn.Linear(2 * dims, dims)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


@MODELS.register_module()
class AttentionMasker(BaseMasker):
    """Patch network whose scores pool its own patch features for a head (attention-based multiple-instance learning).

    An image is a bag of patches, and its label is read from the mean of their features, weighted by the softmax of their
    scores (Ilse et al., ICML 2018, equation 8, without the gate). Patches that tell nothing about the label only dilute the
    mean, so their scores fall. A patch is embedded alone: a network that sees its neighbours can put its score beside what
    it saw. Attention begins even: sure of the wrong patches at first, it may never learn. Ours;
    :class:`mmmlo.models.GuidedMAE` trains it beside the autoencoder.

    Args:
        patch_size (int): Patch size in pixels, the backbone's.
        head (dict): Any of mmpretrain's heads, for features of width ``dims``, as
            ``dict(type='LinearClsHead', num_classes=10, in_channels=48)``.
        in_channels (int): Image channels. Defaults to 3.
        dims (int): Width of the patch features. Defaults to 48.
        depth (int): Residual blocks after the embedding. Defaults to 2.
        init_cfg (dict, optional): Initialization. Defaults to None, PyTorch's own.

    Raises:
        SettingError: The head takes features of another width.
    """

    def __init__(
        self, patch_size: int, head: dict, in_channels: int = 3, dims: int = 48, depth: int = 2, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.patch_size = patch_size
        self.embed = nn.Conv2d(in_channels, dims, patch_size, stride=patch_size)
        self.blocks = nn.Sequential(*[_ResidualBlock(dims) for _ in range(depth)], nn.LayerNorm(dims))
        self.attention = nn.Linear(dims, 1)
        nn.init.normal_(self.attention.weight, std=1e-3)
        nn.init.zeros_(self.attention.bias)
        self.norm = nn.LayerNorm(dims)
        self.head: Any = MODELS.build(head)
        if getattr(self.head, 'in_channels', dims) != dims:
            raise SettingError(
                f'model.masker.head.in_channels is {self.head.in_channels}, but model.masker.dims is {dims}; make them one'
            )

    def forward(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Score the patches; see :meth:`BaseMasker.forward`."""
        return to_mask_prob(self.attention(self._features(images)).squeeze(-1))

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.embed(images).flatten(2).transpose(1, 2))  # B x L x C

    def loss(self, images: torch.Tensor, data_samples: list) -> dict[str, torch.Tensor]:
        """Compute the head's loss on the attended mean of the patch features.

        Args:
            images (torch.Tensor): Preprocessed images, B x C x H x W.
            data_samples (list): Their labels.

        Returns:
            dict[str, torch.Tensor]: The losses of the head.
        """
        features = self._features(images)  # B x L x C
        attention = self.attention(features).squeeze(-1).softmax(dim=1)  # B x L
        pooled = torch.einsum('blc,bl->bc', features, attention)
        return self.head.loss((self.norm(pooled),), data_samples)
