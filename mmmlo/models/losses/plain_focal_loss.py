"""Focal loss of elementary operations."""

import torch
import torch.nn.functional as F
from mmdet.models.losses import FocalLoss

from mmmlo.registry import MODELS


@MODELS.register_module()
class PlainFocalLoss(FocalLoss):
    """mmdet's ``FocalLoss`` on CPU and GPU alike, for hypergradients.

    On a GPU mmdet takes mmcv's kernel, which has neither a forward-mode rule nor a second derivative. Arguments are those of
    ``FocalLoss``.
    """

    def forward(self, pred: torch.Tensor, target: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        """Compute the loss of logits, N x K; targets are classes, N, with K for none, or one-hot, N x K."""
        if target.dim() < pred.dim():  # mmdet takes elementary operations for one-hot targets
            target = F.one_hot(target, pred.shape[1] + 1)[:, : pred.shape[1]]
        pred = pred.to(torch.promote_types(pred.dtype, torch.float32))  # bfloat16 would round what is differentiated
        return super().forward(pred, target, *args, **kwargs)
