"""Score patches by a small network on what an encoder's class token attends to."""

from typing import Any

import torch
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

from .base import centered, to_mask_prob
from .teacher import TeacherMasker


@MODELS.register_module()
class AttentionMapMasker(TeacherMasker):
    """Two 3 x 3 convolutions on the class token's attention in the last layer, a map a head; the scorer of AutoMAE.

    The attention is that of a pretrained encoder like the model's, which stays as it is; without one it is that of the
    model's own moving average (ours). Maps are multiplied by the number of patches, so that their mean is near 1 on every
    grid.

    Args:
        num_heads (int): Attention heads of the backbone.
        checkpoint (str, optional): A checkpoint whose ``backbone`` is the encoder. Defaults to None: a moving average,
            which needs ``mmmlo.TeacherHook``.
        momentum (float): See :class:`TeacherMasker`.

    Raises:
        SettingError: The backbone has another number of heads.
    """

    weighted = False

    def __init__(
        self, num_heads: int, checkpoint: str | None = None, momentum: float = 0.001, init_cfg: dict | None = None
    ) -> None:
        super().__init__(momentum, init_cfg)
        self.num_heads, self.checkpoint = num_heads, checkpoint
        hidden = max(1, num_heads // 2)
        self.scorer = nn.Sequential(
            nn.Conv2d(num_heads, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, 1, 3, padding=1)
        )
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None

    def parts(self, model: Any) -> nn.ModuleDict:
        """Name the parts of the model that the teacher follows."""
        return nn.ModuleDict(dict(backbone=model.backbone))

    def attach(self, model: Any) -> None:
        """Make the encoder, before the model is initialized."""
        heads = model.backbone.layers[-1].attn.num_heads
        if heads != self.num_heads:
            raise SettingError(f'model.masker.num_heads is {self.num_heads}, but model.backbone has {heads}; make them one')
        super().attach(model)
        if self.checkpoint is not None:
            self.teacher['backbone'].init_cfg = dict(type='Pretrained', checkpoint=self.checkpoint, prefix='backbone.')

    def init_weights(self) -> None:
        """Initialize the scorer, and load the encoder where there is a checkpoint of it."""
        super().init_weights()
        if self.checkpoint is not None:
            self.teacher['backbone'].init_weights()

    @torch.no_grad()
    def move(self, model: Any, momentum: float | None = None) -> None:
        """Move the encoder, unless it is pretrained; see :meth:`TeacherMasker.move`."""
        if self.checkpoint is None:
            super().move(model, momentum)

    @torch.no_grad()
    def attention(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the attention maps of images, B x 3 x H x W: B x heads x L.

        Those of the last images are kept for a second level that asks for them on the same batch.
        """
        if self._last is not None and self._last[0] is images:
            maps, self._last = self._last[1], None
            return maps
        tokens, _ = self.teacher['backbone'].embed(images)
        maps = self.teacher['backbone'].class_attention(tokens).to(images.dtype)  # autocast may differ between levels
        self._last = images, maps
        return maps

    def forward(self, images: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Score the patches; see :meth:`BaseMasker.forward`."""
        if self.checkpoint is None:
            self.check_moves()
        maps = self.attention(images)  # B x heads x L
        return to_mask_prob(centered(self.scorer(maps.shape[2] * maps.unflatten(2, grid)).flatten(1)))
