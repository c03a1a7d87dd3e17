from importlib.util import find_spec

from .masked_pixel_head import MaskedPixelHead

__all__ = ['MaskedPixelHead']

if find_spec('mmseg') is not None:  # pretraining does without
    from .linear_seg_head import LinearSegHead  # noqa: F401

    __all__ += ['LinearSegHead']

if find_spec('mmdet') is not None and find_spec('mmcv._ext') is not None:
    from .autocast_rpn_head import AutocastRPNHead  # noqa: F401

    __all__ += ['AutocastRPNHead']
