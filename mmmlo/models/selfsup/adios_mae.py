"""ADIOS on patches: several soft masks against which the autoencoder plays."""

from typing import Any

import torch

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from ..maskers.unet import draw_mask
from ..selection import select_patches
from .base import BaseMaskedAutoencoder, Masking


@MODELS.register_module()
class ADIOSMAE(BaseMaskedAutoencoder):
    """Adversarial Masking for Self-Supervised Learning (Shi et al., ICML 2022), on embedded patches and with a decoder.

    The masker divides the patches of an image among N soft masks. Under each, patches are scaled by 1 minus the mask and
    all are reconstructed; a patch's loss counts as much as the mask hides it. Two levels, on the same batch:

    - ``pretrain``: encoder and decoder minimize that loss;
    - ``masking``: the masker maximizes it, and minimizes the penalty on masks that hide all or nothing.

    Masks stay soft: no patch is left out of the encoder, which makes N masks dear.

    Args:
        area (dict, optional): Settings of the penalty, a :class:`MaskAreaLoss` by default.
        single (bool): Whether each image has one mask a step, drawn of its N, as ADIOS-s. Defaults to False, all of them.
        **kwargs: Arguments of :class:`BaseMaskedAutoencoder`. ``mask_ratio`` is for pictures and statistics alone: the
            share of patches that are drawn as hidden.

    Raises:
        SettingError: The masker has no several masks or nothing to learn, or an argument is given that does nothing here.
    """

    def __init__(self, *args: Any, area: dict | None = None, single: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not hasattr(self.masker, 'soft_masks'):
            raise SettingError(
                f'model.masker is a {type(self.masker).__name__}, which divides no image among masks; use mmmlo.UNetMasker'
            )
        for key in ('extra_losses', 'weighting', 'temperature', 'mask_ratio_range', 'throw_ratio'):
            if getattr(self, key):
                raise SettingError(f'model.{key} does nothing in mmmlo.ADIOSMAE, whose masks are soft; leave it out')
        self.area = MODELS.build(dict(type='mmmlo.MaskAreaLoss') | (area or {}))
        self.single = single

    @property
    def level_modules(self) -> dict[str, tuple[str, ...]]:
        """dict[str, tuple[str, ...]]: Modules of the levels."""
        return super().level_modules | dict(masking=('masker',))

    def draw_masks(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> Masking:
        """Draw one of the masks for each image, for looking at: the patches that it hides most."""
        mask_prob = self.score(images, tokens, grid)
        return Masking(mask_prob, None, select_patches(mask_prob, self.mask_ratio))

    def level_loss(self, level: str, batch: dict, fixed: Any = None) -> dict[str, torch.Tensor]:
        """Losses of one level on one batch; see :meth:`BaseMaskedAutoencoder.level_loss`.

        ``masking`` returns ``loss_reconstruction``, which is negative, ``loss_area``, and ``reconstruction`` to look at.
        """
        images = batch['inputs']
        tokens, grid = self.backbone.embed(images)  # B x L x C
        masker: Any = self.masker
        masks = self.score(images, tokens, grid, masker.soft_masks)  # B x N x L
        if level == 'pretrain':
            masks = masks.detach()
        shown = draw_mask(masks) if self.single else masks  # B x K x L
        reconstruction = self.soft_reconstruction_loss(
            images.repeat_interleave(shown.shape[1], dim=0),
            tokens.repeat_interleave(shown.shape[1], dim=0),
            shown.flatten(0, 1),
        )
        if level == 'pretrain':
            return dict(loss=reconstruction)
        return dict(reconstruction=reconstruction, loss_reconstruction=-reconstruction, loss_area=self.area(masks))

    def _predict_all(self, tokens: torch.Tensor, masking: Masking) -> torch.Tensor:
        return self.soft_predict(tokens, masking.mask_prob)
