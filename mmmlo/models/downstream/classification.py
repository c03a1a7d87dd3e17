"""Linear classification head on one token, the downstream task of MLO-MAE's stages II and III."""

import torch
from mmpretrain.models import LinearClsHead
from mmpretrain.structures import DataSample
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError


@MODELS.register_module()
class TokenClsHead(LinearClsHead):
    """Layer norm, dropout and a linear layer on the class token or the mean of the patch tokens.

    The head C of MLO-MAE (Guo et al., 2025, equation 2); its shape is that of the released code. It has mmpretrain's
    head interface, ``loss(feats, data_samples)``, which is all that the engine asks of a downstream module. Several labels
    an image need ``loss=dict(type='CrossEntropyLoss', use_sigmoid=True)``.

    Args:
        num_classes (int): Number of classes.
        in_channels (int): Width C of the tokens.
        token (str): 'cls', or 'mean' over the patch tokens. Defaults to 'cls'.
        dropout (float): Dropout rate before the linear layer. Defaults to 0.1.
        **kwargs: Other arguments of ``LinearClsHead``.
    """

    def __init__(self, num_classes: int, in_channels: int, token: str = 'cls', dropout: float = 0.1, **kwargs) -> None:
        super().__init__(num_classes=num_classes, in_channels=in_channels, **kwargs)
        if token not in ('cls', 'mean'):
            raise SettingError(f"model.downstream.token must be 'cls' or 'mean', got {token!r}")
        self.token = token
        self.norm = nn.LayerNorm(in_channels, eps=1e-6)
        self.dropout = nn.Dropout(dropout)

    @property
    def read_tokens(self) -> slice:
        """slice: The tokens of the last features that the head reads; :class:`MLOMAE` computes and passes no others."""
        return slice(0, 1) if self.token == 'cls' else slice(None)

    def pre_logits(self, feats: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Pick the token of the last features, B x (1 + L) x C, normalize it and drop out, B x C."""
        tokens = feats[-1]
        x = tokens[:, 0] if self.token == 'cls' else tokens[:, 1:].mean(dim=1)
        return self.dropout(self.norm(x))

    def _get_predictions(self, cls_score: torch.Tensor, data_samples: list[DataSample] | None) -> list[DataSample]:
        samples = super()._get_predictions(cls_score, data_samples)
        if getattr(self.loss_module, 'use_sigmoid', False):  # of several labels an image none excludes another
            for sample, score in zip(samples, cls_score.sigmoid()):
                sample.set_pred_score(score)
        return samples
