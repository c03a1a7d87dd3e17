"""Score patches by what the class token of a moving average of the encoder attends to."""

from typing import Any

import torch
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from ..selection import num_visible
from .teacher import TeacherMasker


@MODELS.register_module()
class ClassAttentionMasker(TeacherMasker):
    """The class token's attention in the last layer of the teacher, as in AttMask (Kakogeorgiou et al., ECCV 2022) and AMT.

    Each head's attention is brought to [0, 1] in each image, and their mean is the score. Masked are the most attended
    patches, of which a few may be shown as hints; or, with ``model.temperature=1`` as in AMT (Liu et al., AAAI 2023), those
    that are drawn in proportion to it.

    Args:
        show (float): Share s of the patches whose most attended s * L may be hints: s * r * L of them, drawn uniformly, are
            the last to be masked, where r is the mask ratio. AttMask-Hint has 0.1. Defaults to 0, AttMask-High.
        low (bool): Whether the least attended patches are masked, AttMask-Low. Defaults to False.
        momentum (float): See :class:`TeacherMasker`.

    Raises:
        SettingError: ``show`` is not from 0 to 1, makes more hints than there are visible patches, or has a temperature
            under which hints might be masked; or see :class:`TeacherMasker`.
    """

    def __init__(
        self, show: float = 0.0, low: bool = False, momentum: float = 0.001, init_cfg: dict | None = None
    ) -> None:
        super().__init__(momentum, init_cfg)
        if not 0 <= show < 1:
            raise SettingError(f'model.masker.show must be from 0 to 1, 1 excluded, got {show}')
        self.show, self.low = show, low

    def parts(self, model: Any) -> nn.ModuleDict:
        """Name the parts of the model that the teacher follows."""
        return nn.ModuleDict(dict(backbone=model.backbone))

    def attach(self, model: Any) -> None:
        """Make the teacher, before the model is initialized."""
        if self.show and model.temperature:
            raise SettingError('model.masker.show needs model.temperature=0: with noise its hints might be masked')
        super().attach(model)

    @torch.no_grad()
    def forward(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Score the patches; see :meth:`BaseMasker.forward`."""
        self.check_moves()
        embedded, _ = self.teacher['backbone'].embed(images)
        maps = self.teacher['backbone'].class_attention(embedded).to(torch.promote_types(images.dtype, torch.float32))
        low, high = maps.amin(dim=2, keepdim=True), maps.amax(dim=2, keepdim=True)  # B x heads x 1
        scores = ((maps - low) / (high - low + 1e-6)).mean(dim=1)  # B x L
        scores = 1e-3 + 0.998 * (1 - scores if self.low else scores)  # none is 0, which could never be drawn
        # Noise, so that of patches that are attended alike the first ones are not masked more often.
        scores = scores + 1e-5 * torch.rand_like(scores)
        length = scores.shape[1]
        hints = round(self.show * self.mask_ratio * length)
        if hints > (visible := num_visible(length, self.mask_ratio)):
            raise SettingError(
                f'model.masker.show {self.show} makes {hints} hints of {length} patches, and only {visible} are visible at '
                f'mask ratio {self.mask_ratio}'
            )
        if hints:
            top = scores.topk(round(self.show * length), dim=1).indices  # B x s L
            drawn = torch.rand(top.shape, device=top.device).topk(hints, dim=1).indices  # B x s r L
            scores = scores.scatter(1, top.gather(1, drawn), 1e-4)
        return scores
