"""Define what every masker has in common."""

from abc import ABCMeta, abstractmethod

import torch
from mmengine.model import BaseModule
from torch import nn


class BaseMasker(BaseModule, metaclass=ABCMeta):
    """Network that scores patches: the larger ``mask_prob``, the rather a patch is masked.

    Attributes:
        grid (tuple[int, int] | None): The (H, W) grid that the masker is built for, or None if it takes any.
        embed_dims (int | None): The token width that the masker is built for, or None if it reads no tokens.
        patch_size (int | None): The patch size in pixels that the masker is built for, or None if it reads no images.
        weighted (bool): Whether ``mask_prob`` weights the reconstruction loss, as in equation (1) of MLO-MAE. Without it
            the scores only choose the patches.
        full_precision (bool): Whether the masker runs without autocast. Its scores are compared with each other and weight
            the loss, and what is rounded there grows over the cycles. Defaults to True; a masker as deep as an encoder
            leaves it to the sigmoid, see :func:`to_mask_prob`.
        mask_ratio (float): Share of the patches that will be masked; the model sets it before it asks for scores.
    """

    grid: tuple[int, int] | None = None
    embed_dims: int | None = None
    patch_size: int | None = None
    weighted: bool = True
    full_precision: bool = True
    mask_ratio: float = 0.75

    def attach(self, model: nn.Module) -> None:
        """Take what is needed of the model that the masker is part of, once all its parts are built; nothing."""

    @abstractmethod
    def forward(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Score the patches.

        Args:
            images (torch.Tensor): Preprocessed images, B x 3 x H x W.
            tokens (torch.Tensor): Patch embeddings plus positions, detached from the encoder, B x L x C. Attached, they
                would let the encoder lower its loss by moving them until the scores fall.
            grid (tuple[int, int]): Patches along the height and the width.

        Returns:
            torch.Tensor: ``mask_prob``, the probability that a patch is masked, B x L, in (0, 1).
        """


def to_mask_prob(logits: torch.Tensor) -> torch.Tensor:
    """Sigmoid, in fp32 at least.

    Scores weight the loss and are compared with each other. Under autocast those around 0.5 would be multiples of 1/512 in
    bfloat16, and ties would choose patches by their position; a logit of fp16 over 8.3 would be a score of exactly 1.
    """
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()


def centered(logits: torch.Tensor) -> torch.Tensor:
    """Subtract an image's mean from logits, B x L, of which a softmax is made; it may drift to where a sigmoid rounds."""
    return logits - logits.mean(dim=1, keepdim=True)
