"""Region proposals under bfloat16 autocast."""

import torch
from mmdet.models.dense_heads import RPNHead

from mmmlo.registry import MODELS


@MODELS.register_module()
class AutocastRPNHead(RPNHead):
    """mmdet's ``RPNHead``, whose scores and boxes are float32 under autocast.

    Its convolutions run in bfloat16; what comes of them goes to mmcv's NMS, which has none, and the coordinates of large
    images would be rounded to multiples of 4 pixels. Its parameters are those of ``RPNHead``.
    """

    def forward_single(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict scores, B x anchors x H x W, and deltas, B x (anchors * 4) x H x W, from one level, B x C x H x W."""
        scores, deltas = super().forward_single(x)
        return scores.float(), deltas.float()
