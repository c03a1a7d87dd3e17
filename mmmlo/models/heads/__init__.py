from .masked_pixel_head import MaskedPixelHead
from .token_cls_head import TokenClsHead

__all__ = ['MaskedPixelHead', 'TokenClsHead']
