"""The encoder of ViTDet, in detectron2 and in mmdetection's project."""

from collections.abc import Mapping

from torch import Tensor

from .base import Format
from .keys import ENCODER, KeyTable

_LEFT = ('cls_token', 'norm.{p}', 'fc_norm.{p}', 'head.{p}')


class ViTDetFormat(Format):
    """Files for the ``ViT`` of ViTDet, which reads MAE's names under 'model'.

    It drops the class token and the final norm; of the position embedding it skips the class token's row, so the row stays.
    A trained ViTDet has window attention and relative positions, so it is written only, never read.
    """

    name = 'vitdet'
    library = "ViTDet's ViT in detectron2 and in mmdetection's projects/ViTDet"
    table = KeyTable(pair for pair in ENCODER if pair[0] not in _LEFT)
    readable = False
    square_only = True
    resize_function = (
        "mmpretrain's resize_pos_embed (bicubic, align_corners=False, no antialiasing), as ViTDet's get_abs_pos"
    )

    def drops_writing(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        """Patterns of our keys that have no place here, and why."""
        return {
            **super().drops_writing(state),
            'backbone.cls_token': 'class token, which ViTDet has not',
            'backbone.ln[12].*': 'final norm, which ViTDet has not',
            'head.*': 'head of a classifier, not part of the backbone',
        }
