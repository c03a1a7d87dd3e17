"""timm's ``VisionTransformer``."""

from torch import Tensor

from .base import Format, Grid
from .keys import ENCODER, KeyTable
from .layer_scale import LAYER_SCALE


class TimmFormat(Format):
    """Files for ``timm.create_model('vit_...', checkpoint_path=FILE)``."""

    name = 'timm'
    library = "timm's vision_transformer"
    container = 'state_dict'
    table = KeyTable([*ENCODER, *LAYER_SCALE])
    signature = ('blocks.*',)
    resize_function = "timm's resample_abs_pos_embed (bicubic, antialiased)"

    def resize(self, position: Tensor, old: Grid, new: Grid) -> Tensor:
        """Resize as timm does."""
        from timm.layers import resample_abs_pos_embed

        return resample_abs_pos_embed(position, list(new), list(old), num_prefix_tokens=1)
