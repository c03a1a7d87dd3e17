"""CL-MAE: masks that turn from partner to adversary of the autoencoder."""

from typing import Any

import torch
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from .base import BaseMaskedAutoencoder, Masking


@MODELS.register_module()
class CLMAE(BaseMaskedAutoencoder):
    """CL-MAE: Curriculum-Learned Masked Autoencoders (Madan et al., WACV 2024).

    Two levels, on the same batch, each with an optimizer of its own and the other one standing still:

    - ``pretrain``: as in MAE, encoder and decoder reconstruct the masked patches. The masker chooses them, the patches with
      the largest ``mask_prob``, and gets no gradient.
    - ``masking``: nothing is hidden. Each token is scaled by its keep weight 1 - p, p being ``mask_prob``, the decoder
      reconstructs all patches, and the masker minimizes
      ``factor * sum(p * l) / sum(p)`` plus the three losses on the scores.

    The factor runs from 1, at which the masker helps the autoencoder, through 0 to -1, at which it works against it:
    easy masks first, hard ones later. :class:`mmmlo.engine.CurriculumHook` sets it.

    Args:
        binarization (dict, optional): Settings of the loss that keeps scores away from 0.5, a
            :class:`MaskBinarizationLoss` by default. ``loss_weight=0`` switches this and the other losses off.
        ratio (dict, optional): Those of :class:`MaskRatioLoss`, which keeps an image's mean score at ``mask_ratio``.
        diversity (dict, optional): Those of :class:`MaskDiversityLoss`, which keeps the masks of a batch apart.
        **kwargs: Arguments of :class:`BaseMaskedAutoencoder`.

    Attributes:
        curriculum_factor (float): The factor of the masking level's reconstruction term. 1 until a hook sets it.
    """

    def __init__(
        self,
        *args,
        binarization: dict | None = None,
        ratio: dict | None = None,
        diversity: dict | None = None,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        ratio = dict(type='mmmlo.MaskRatioLoss') | (ratio or {})
        if ratio.setdefault('mask_ratio', self.mask_ratio) != self.mask_ratio:
            raise SettingError(
                f'model.ratio.mask_ratio is {ratio["mask_ratio"]}, but model.mask_ratio is {self.mask_ratio}: the scores '
                'would be pulled away from the share of patches that is masked; leave it out'
            )
        self.mask_losses = nn.ModuleDict(
            dict(
                binarization=MODELS.build(dict(type='mmmlo.MaskBinarizationLoss') | (binarization or {})),
                ratio=MODELS.build(ratio),
                diversity=MODELS.build(dict(type='mmmlo.MaskDiversityLoss') | (diversity or {})),
            )
        )
        self.curriculum_factor = 1.0

    @property
    def level_modules(self) -> dict[str, tuple[str, ...]]:
        """dict[str, tuple[str, ...]]: Modules of the levels; no ``masking`` with a masker that has nothing to learn."""
        levels = super().level_modules
        if self.masker_learns:
            levels['masking'] = ('masker',)
        return levels

    def draw_masks(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> Masking:
        """Score the patches and mask those with the largest scores, which weight the loss only by a ``weighting``."""
        masking = super().draw_masks(images, tokens, grid)
        return masking if self.weighting is not None else masking._replace(weight=None)

    def level_loss(self, level: str, batch: dict, fixed: Any = None) -> dict[str, torch.Tensor]:
        """Losses of one level on one batch; see :meth:`BaseMaskedAutoencoder.level_loss`.

        ``masking`` returns ``loss_reconstruction``, with the curriculum's factor, ``loss_binarization``, ``loss_ratio`` and
        ``loss_diversity``; and ``reconstruction`` without the factor, to look at.
        """
        if level == 'masking' and level in self.level_modules:
            return self._masking_loss(batch['inputs'])
        return super().level_loss(level, batch, fixed)

    def _masking_loss(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        tokens, grid = self.backbone.embed(images)  # B x L x C
        mask_prob = self.score(images, tokens, grid)  # B x L
        # At factor 0 the term is for looking at only, and the pass through the autoencoder needs no graph.
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.curriculum_factor != 0):
            reconstruction = self.soft_reconstruction_loss(images, tokens, mask_prob)
        losses = dict(reconstruction=reconstruction, loss_reconstruction=self.curriculum_factor * reconstruction)
        losses.update({f'loss_{name}': loss(mask_prob) for name, loss in self.mask_losses.items()})
        return losses
