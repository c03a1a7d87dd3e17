"""Guidance without labels: how well a decoder of its own fills in random masks of held-out images."""

from typing import Any, NamedTuple

import torch
from mmengine.model import BaseModule

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from ..selection import PatchSelection, select_patches


class MaskedFeatures(NamedTuple):
    """Features of images of which patches are hidden.

    Attributes:
        latent (torch.Tensor): Class token and visible patches, B x (1 + V) x C.
        selection (PatchSelection): Which patches are hidden.
        images (torch.Tensor): The whole images, B x 3 x H x W.
    """

    latent: torch.Tensor
    selection: PatchSelection
    images: torch.Tensor


@MODELS.register_module()
class ReconstructionTask(BaseModule):
    """Decoder that fills in random masks, so that MLO-MAE's three levels need no labels; ours, no paper's.

    Level ``finetune`` trains it on D_tr with the encoder frozen; level ``masking`` lowers its loss on D_val: masks are good
    if an encoder that learned by them tells more about images and masks that it has not seen. Every patch counts the same,
    whatever the masker thinks of it. The agreement of two crops would need no decoder, but features that say nothing
    agree best.

    Args:
        decoder (dict): A :class:`GridMAEDecoder`; a shallow one asks more of the encoder.
        head (dict): A :class:`MaskedPixelHead`.
        mask_ratio (float): Share of the patches that are hidden. Defaults to 0.75.
    """

    reads_labels = False

    def __init__(self, decoder: dict, head: dict, mask_ratio: float = 0.75, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.decoder: Any = MODELS.build(decoder)
        self.head: Any = MODELS.build(head)
        self.mask_ratio = mask_ratio

    def check_backbone(self, backbone: Any, key: str) -> None:
        """Refuse, with a SettingError, a decoder or head that does not fit the backbone; ``key`` is the task's own."""
        for name, built_for, right in (
            ('decoder.grid', self.decoder.grid_size, backbone.grid_size),
            ('decoder.embed_dim', self.decoder.embed_dim, backbone.embed_dims),
            ('decoder.patch_size', self.decoder.patch_size, backbone.patch_size),
            ('head.patch_size', self.head.patch_size, backbone.patch_size),
        ):
            if built_for != right:
                raise SettingError(f'{key}.{name} is {built_for}, but model.backbone has {right}; set {key}.{name}={right}')

    def encode(self, backbone: Any, images: torch.Tensor) -> MaskedFeatures:
        """Encode images, B x 3 x H x W, without random patches."""
        tokens, grid = backbone.embed(images)  # B x L x C
        if tuple(grid) != self.decoder.grid_size:
            raise SettingError(
                f'images have a grid of {tuple(grid)} patches, but model.downstream.decoder.grid is '
                f'{self.decoder.grid_size}; resize or crop the images in the pipeline'
            )
        selection = select_patches(torch.rand(tokens.shape[:2], device=tokens.device), self.mask_ratio)
        return MaskedFeatures(backbone.encode(tokens, selection.ids_keep), selection, images)

    def loss(self, feats: MaskedFeatures, data_samples: list | None = None) -> dict[str, torch.Tensor]:
        """Compute the reconstruction loss of the hidden patches of :meth:`encode`; ``data_samples`` are not read."""
        selection = feats.selection
        pred = self.decoder.decode_masked(feats.latent, selection.ids_keep, selection.ids_masked)
        return dict(loss=self.head.masked_loss(pred, feats.images, selection.ids_masked))
