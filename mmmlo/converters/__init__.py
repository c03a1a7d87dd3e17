"""Checkpoints of other projects to ours and back; ``tools/model_converters/convert.py`` is the command."""

from mmmlo import registry  # noqa: F401 - applies mmmlo.compat, which must precede mmpretrain, mmseg and timm

from .base import ConversionError, Format
from .convert import Conversion, ConversionReport, convert, write_file
from .encoder import EncoderShape, encoder_shape
from .formats import FORMATS, detect_format, get_format

__all__ = [
    'FORMATS', 'Conversion', 'ConversionError', 'ConversionReport', 'EncoderShape', 'Format', 'convert',
    'detect_format', 'encoder_shape', 'get_format', 'write_file'
]
