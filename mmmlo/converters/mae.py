"""The files of MAE's own code, pretrained and fine-tuned."""

from .base import Format
from .keys import DECODER, ENCODER, KeyTable


class MAEFormat(Format):
    """Files of https://github.com/facebookresearch/mae, which keep the weights under 'model'."""

    name = 'mae'
    library = "MAE's own code, pretrained (with or without decoder) and fine-tuned"
    table = KeyTable([*ENCODER, *DECODER])
    signature: tuple[str, ...] = ('decoder_*', 'mask_token')
    has_decoder = True
    resize_function = (
        "mmpretrain's resize_pos_embed (bicubic, align_corners=False, no antialiasing), as MAE's interpolate_pos_embed"
    )
