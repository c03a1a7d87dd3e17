"""Build a feature pyramid from a single feature map."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from mmpretrain.models.utils import LayerNorm2d
from torch import nn

from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError


@MODELS.register_module()
class SimpleFPN(BaseModule):
    """ViTDet's simple feature pyramid (Li et al., 2022, section 3).

    All levels come from the last feature map of a plain backbone, without lateral connections: stride 4 by two transposed
    convolutions, stride 8 by one, stride 16 as it is, stride 32 by max pooling; each is followed by a 1 x 1 and a 3 x 3
    convolution, with layer norms over the channels.

    Args:
        in_channels (int): Channels C of the backbone's feature map, of stride 16.
        out_channels (int): Channels of every level. Defaults to 256.
        num_outs (int): Levels, at least 4: strides 4, 8, 16, 32 and, from the fifth on, each half as large as the one before
            by picking every second position, as in mmdet's ``FPN``. Defaults to 5.
    """

    def __init__(
        self, in_channels: int, out_channels: int = 256, num_outs: int = 5, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        if num_outs < 4:
            raise SettingError(f'model.neck.num_outs must be at least 4, for strides 4 to 32, got {num_outs}')
        self.num_outs = num_outs
        half, quarter = in_channels // 2, in_channels // 4
        scales = (
            (
                nn.ConvTranspose2d(in_channels, half, 2, stride=2),
                LayerNorm2d(half),
                nn.GELU(),
                nn.ConvTranspose2d(half, quarter, 2, stride=2),
            ),
            (nn.ConvTranspose2d(in_channels, half, 2, stride=2),),
            (),
            (nn.MaxPool2d(2, stride=2),),
        )
        self.levels = nn.ModuleList()
        for scale, channels in zip(scales, (quarter, half, in_channels, in_channels)):
            self.levels.append(
                nn.Sequential(
                    *scale,
                    nn.Conv2d(channels, out_channels, 1, bias=False),
                    LayerNorm2d(out_channels),
                    nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                    LayerNorm2d(out_channels),
                )
            )

    def forward(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Build the pyramid from the last of the backbone's feature maps, B x C x H x W.

        Returns:
            tuple[torch.Tensor]: B x out_channels at 4, 2, 1, 1/2, ... times H x W. In float32 at least, under autocast too:
            mmcv's ``RoIAlign`` has no bfloat16.
        """
        outs = [level(inputs[-1]) for level in self.levels]
        outs = [out.to(torch.promote_types(out.dtype, torch.float32)) for out in outs]
        while len(outs) < self.num_outs:
            outs.append(outs[-1][:, :, ::2, ::2])
        return tuple(outs)
