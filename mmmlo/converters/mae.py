"""The files of MAE's own code, pretrained and fine-tuned."""

from collections.abc import Mapping

from torch import Tensor

from .base import Format
from .keys import DECODER, ENCODER, KeyTable
from .masker_kind import masker_kind


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
    # The kind of masking network that the files hold, and its name in messages.
    masker: str | None = None
    masker_words = ''

    def drops_writing(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        """Patterns of our keys that have no place here, and why."""
        drops = super().drops_writing(state)
        kind = masker_kind(state)
        if self.masker is not None and kind == self.masker:
            del drops['masker.*']
        elif self.masker is not None and kind is not None:
            drops['masker.*'] = f'masking network of another kind than the released one, {self.masker_words}'
        return drops
