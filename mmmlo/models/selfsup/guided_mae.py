"""Masked autoencoder beside which the masker learns by a loss of its own."""

from typing import Any

import torch

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from .base import BaseMaskedAutoencoder, Masking


@MODELS.register_module()
class GuidedMAE(BaseMaskedAutoencoder):
    """Two levels that never meet in one loss; ours.

    - ``pretrain``: encoder and decoder reconstruct the masked patches, weighted by the scores, which get no gradient, as far
      as the masker's ``trust`` goes: at 0 all patches weigh the same;
    - ``masking``: the masker minimizes ``masker.loss(images, data_samples)``, such as :class:`AttentionMasker`'s,
      which learns from labels where to look.

    Labels reach the encoder as weights of patches alone. A cycle costs a MAE step and one of the small masker, where the
    hypergradient of :class:`MLOMAE` costs two to three steps.

    Args:
        **kwargs: Arguments of :class:`BaseMaskedAutoencoder`.

    Raises:
        SettingError: The masker has no loss.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not hasattr(self.masker, 'loss'):
            raise SettingError(
                f'model.masker is a {type(self.masker).__name__}, which has no loss of its own; use mmmlo.AttentionMasker'
            )

    @property
    def level_modules(self) -> dict[str, tuple[str, ...]]:
        """dict[str, tuple[str, ...]]: Modules of the levels."""
        return super().level_modules | dict(masking=('masker',))

    @torch.no_grad()
    def draw_masks(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> Masking:
        """Score, choose and weight the patches, without a graph to the masker."""
        return super().draw_masks(images, tokens, grid)

    def weigh(self, mask_prob: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Make weights of the scores, B x L, as far as the masker trusts them."""
        trust: Any = getattr(self.masker, 'trust', 1)
        return 1 + trust * (super().weigh(mask_prob, mask) - 1)

    def level_loss(self, level: str, batch: dict, fixed: Any = None) -> dict[str, torch.Tensor]:
        """Losses of one level on one batch; see :meth:`BaseMaskedAutoencoder.level_loss`."""
        if level == 'masking':
            masker: Any = self.masker
            return masker.loss(batch['inputs'], batch['data_samples'])
        return super().level_loss(level, batch, fixed)
