"""Linear segmentation head, for a quick comparison of frozen backbones."""

import torch
from mmcv.cnn import build_norm_layer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead

from mmmlo.registry import MODELS


@MODELS.register_module()
class LinearSegHead(BaseDecodeHead):
    """Batch norm without affine parameters, then a 1 x 1 convolution: a linear classifier of each patch.

    The norm brings the features of differently pretrained backbones to one scale, as the linear probe of MAE does for
    classification, so that one learning rate suits them all. The logits are enlarged to the image by mmseg, bilinearly.

    Args:
        in_channels (int): Width of the feature map, the backbone's last one.
        norm_cfg (dict): The batch norm; ``affine`` is set to False. Defaults to ``dict(type='BN')``. Several GPUs with small
            batches want 'SyncBN'.
        dropout_ratio (float): Dropout of whole channels before the convolution. Defaults to 0.
        **kwargs: Other arguments of mmseg's ``BaseDecodeHead``, ``num_classes`` first among them.
    """

    def __init__(
        self,
        in_channels: int,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006 - not changed
        dropout_ratio: float = 0.0,
        **kwargs,
    ) -> None:
        super().__init__(
            in_channels, channels=in_channels, norm_cfg=dict(norm_cfg, affine=False), dropout_ratio=dropout_ratio, **kwargs
        )
        self.norm = build_norm_layer(self.norm_cfg, self.channels)[1]

    def forward(self, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Classify each patch of the last feature map, B x C x H x W; logits are B x classes x H x W."""
        return self.cls_seg(self.norm(self._transform_inputs(inputs)))
