"""AdaMAE: visible patches drawn from a distribution that a policy gradient teaches."""

from typing import Any

import torch
import torch.nn.functional as F

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from ..selection import gumbel_noise, select_patches
from .base import BaseMaskedAutoencoder, Masking


@MODELS.register_module()
class AdaMAE(BaseMaskedAutoencoder):
    """AdaMAE: Adaptive Masking for Efficient Spatiotemporal Learning with Masked Autoencoders (Bandara et al., CVPR 2023).

    The masker's scores are a distribution p over the patches of an image, proportional to the odds of being visible,
    ``(1 - mask_prob) / mask_prob``, the softmax of the negative logits. Visible patches are drawn from it without
    replacement. One level, because nothing in either loss reaches the other's parameters: encoder and decoder minimize the
    reconstruction loss, and the masker ``-sampling_weight * mean of l_i * log(p_i)`` over masked patches i, whose loss l_i
    is detached. So patches that are hard become likelier to be seen. The mean logit of an image is in neither loss, and may
    drift to where a sigmoid rounds, unless the masker subtracts it, as ``ViTMasker(centered=True)`` does.

    Args:
        sampling_weight (float): Weight of the masker's loss. Defaults to 1e-4, as released; a step of Adam hardly depends
            on it.
        **kwargs: Arguments of :class:`BaseMaskedAutoencoder`.

    Raises:
        SettingError: ``temperature`` is given, which does nothing here.
    """

    def __init__(self, *args: Any, sampling_weight: float = 1e-4, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.temperature:
            raise SettingError('model.temperature does nothing in mmmlo.AdaMAE, which draws visible patches; leave it out')
        self.sampling_weight = sampling_weight

    @property
    def level_modules(self) -> dict[str, tuple[str, ...]]:
        """dict[str, tuple[str, ...]]: Modules of the one level, the masker among them if it learns."""
        levels = super().level_modules
        return dict(pretrain=(*levels['pretrain'], 'masker')) if self.masker_learns else levels

    def draw_masks(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> Masking:
        """Score the patches and draw the visible ones; weights of the loss are those of a ``weighting`` alone."""
        self.masker.mask_ratio = self.draw_ratio()
        mask_prob = self.score(images, tokens, grid)
        log_p = visible_log_probabilities(mask_prob.detach())
        selection = select_patches(
            -(log_p + gumbel_noise(log_p)),
            self.masker.mask_ratio,
            guided_share=self.guided_share,
            throw_ratio=self.throw_ratio,
        )
        weight = None if self.weighting is None else self.weigh(mask_prob, selection.mask)
        return Masking(mask_prob, weight, selection)

    def masker_losses(self, masking: Masking, pred: torch.Tensor, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The masker's loss; see :meth:`BaseMaskedAutoencoder.masker_losses`."""
        if not self.masker_learns:
            return {}
        ids_masked = masking.selection.ids_masked
        log_p = visible_log_probabilities(masking.mask_prob).gather(1, ids_masked)  # B x M
        patch_loss = self.head.patch_loss(pred, images, ids_masked)  # B x M
        return dict(loss_sampling=-self.sampling_weight * (patch_loss * log_p).mean())


def visible_log_probabilities(mask_prob: torch.Tensor) -> torch.Tensor:
    """Logarithms of the probabilities, B x L, that a patch is the first one to be made visible."""
    return F.log_softmax(-mask_prob.logit(eps=1e-6), dim=1)
