"""Score patches by an attention that learns, from labels, which of them tell the label."""

from typing import Any

import torch
from mmengine.dist import all_reduce
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
    mean, so their scores fall. A patch is embedded with a margin of a few pixels: a network that sees far can put its score
    beside what it saw. Attention begins even: sure of the wrong patches at first, it may never learn. Ours;
    :class:`mmmlo.models.GuidedMAE` trains it beside the autoencoder.

    Whether it matters where one looks is measured in each step, as the importance of a feature is (Breiman, 2001): by the
    loss of the same patch features under the same attention, dealt to other patches. ``trust`` is the share of that loss
    which the attention saves, averaged over steps: 0 while it has learned nothing, and where every patch tells the label.

    Args:
        patch_size (int): Patch size in pixels, the backbone's.
        head (dict): Any of mmpretrain's heads, for features of width ``dims``, as
            ``dict(type='LinearClsHead', num_classes=10, in_channels=48)``.
        in_channels (int): Image channels. Defaults to 3.
        dims (int): Width of the patch features. Defaults to 48.
        depth (int): Residual blocks after the embedding. Defaults to 2.
        margin (int): Pixels around a patch that are embedded with it. Defaults to 0.
        momentum (float): Share of ``trust`` that stays in a step. Defaults to 0.98.
        init_cfg (dict, optional): Initialization. Defaults to None, PyTorch's own.

    Raises:
        SettingError: The head takes features of another width.
    """

    trust: torch.Tensor

    def __init__(
        self,
        patch_size: int,
        head: dict,
        in_channels: int = 3,
        dims: int = 48,
        depth: int = 2,
        margin: int = 0,
        momentum: float = 0.98,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.patch_size, self.momentum = patch_size, momentum
        self.register_buffer('trust', torch.zeros(()))
        self.embed = nn.Conv2d(in_channels, dims, patch_size + 2 * margin, stride=patch_size, padding=margin)
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
        """Compute the head's loss on the attended mean of the patch features, and while training update ``trust``.

        Args:
            images (torch.Tensor): Preprocessed images, B x C x H x W.
            data_samples (list): Their labels.

        Returns:
            dict[str, torch.Tensor]: The losses of the head, and ``trust``.
        """
        features = self._features(images)  # B x L x C
        attention = self.attention(features).squeeze(-1).softmax(dim=1)  # B x L
        losses = self._head_losses(features, attention, data_samples)
        if self.training:
            with torch.no_grad():
                dealt = attention[:, torch.randperm(attention.shape[1], device=attention.device)]
                saved = 1 - _total(losses) / _total(self._head_losses(features, dealt, data_samples))
                all_reduce(saved, 'mean')
                self.trust.lerp_(saved.nan_to_num().clamp(0, 1).to(self.trust), 1 - self.momentum)
        return dict(losses, trust=self.trust)

    def _head_losses(self, features: torch.Tensor, attention: torch.Tensor, data_samples: list) -> dict[str, torch.Tensor]:
        return self.head.loss((self.norm(torch.einsum('blc,bl->bc', features, attention)),), data_samples)


def _total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack([value.detach() for name, value in losses.items() if 'loss' in name]).sum()
