"""Linear segmentation head, for a quick comparison of frozen backbones."""

from collections.abc import Sequence

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
        in_channels (int | Sequence[int]): Width of the feature map, or of each of several.
        in_index (int | Sequence[int], optional): Which of the backbone's feature maps. Several are enlarged to the size of
            the first and concatenated. Defaults to None: the last one, or with several widths the first so many.
        norm_cfg (dict): The batch norm; ``affine`` is set to False. Defaults to ``dict(type='BN')``. Several GPUs with small
            batches want 'SyncBN'.
        dropout_ratio (float): Dropout of whole channels before the convolution. Defaults to 0.
        **kwargs: Other arguments of mmseg's ``BaseDecodeHead``, ``num_classes`` first among them.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        in_index: int | Sequence[int] | None = None,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006 - not changed
        dropout_ratio: float = 0.0,
        **kwargs,
    ) -> None:
        widths = [in_channels] if isinstance(in_channels, int) else list(in_channels)
        several = not isinstance(in_channels, int)
        if in_index is None:
            in_index = list(range(len(widths))) if several else -1
        super().__init__(
            in_channels,
            channels=sum(widths),
            in_index=in_index,
            input_transform='resize_concat' if several else None,
            norm_cfg=dict(norm_cfg, affine=False),
            dropout_ratio=dropout_ratio,
            **kwargs,
        )
        self.norm = build_norm_layer(self.norm_cfg, self.channels)[1]

    def forward(self, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Classify each patch.

        Args:
            inputs (tuple[torch.Tensor]): Feature maps, B x C x H x W each.

        Returns:
            torch.Tensor: Logits, B x classes x H x W.
        """
        return self.cls_seg(self.norm(self._transform_inputs(inputs)))
