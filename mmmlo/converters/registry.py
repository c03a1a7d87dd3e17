"""All formats by name, and which of them a file is of."""

from collections.abc import Mapping

from torch import Tensor

from mmmlo.utils.text import format_list

from .base import ConversionError, Format
from .cl_mae import CLMAEFormat
from .mae import MAEFormat
from .mlo_mae import MLOMAEFormat
from .mmmlo import MMMLOFormat
from .mmseg_mae import MMSegMAEFormat
from .timm import TimmFormat
from .vitdet import ViTDetFormat

__all__ = ['FORMATS', 'detect_format', 'get_format']

# A file is of the first format that recognizes it: timm's names of the encoder are MAE's and CL-MAE's too.
FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        MMSegMAEFormat(), CLMAEFormat(), MLOMAEFormat(), MAEFormat(), MMMLOFormat(), TimmFormat(), ViTDetFormat()
    )
}


def get_format(name: str) -> Format:
    """Look a format up.

    Raises:
        ConversionError: There is none of that name.
    """
    if name not in FORMATS:
        raise ConversionError(f'unknown format {name!r}; there are {", ".join(sorted(FORMATS))}')
    return FORMATS[name]


def detect_format(state: Mapping[str, Tensor], source: str) -> Format:
    """Tell a file's format by its keys.

    Args:
        state (Mapping[str, Tensor]): Its weights.
        source (str): What to call it.

    Returns:
        Format: The format.

    Raises:
        ConversionError: It is of none, with the closest one and the keys that do not belong to it.
    """
    for format in FORMATS.values():
        if format.recognizes(state):
            return format
    guess, unknown = closest_format(state)
    if len(unknown) == len(state):
        raise ConversionError(
            f'the format of {source} is unknown: none of its {len(state)} keys is, for example {format_list(list(state), 3)}'
        )
    raise ConversionError(
        f'the format of {source} is unknown. The closest is {guess.name}, which has no keys such as '
        f'{format_list(unknown, 3)}; '
        f'if it is of that format, say --from {guess.name}'
    )


def closest_format(state: Mapping[str, Tensor]) -> tuple[Format, list[str]]:
    """The format that knows most of a file's keys, and the keys that it does not know.

    Of several the plainest counts: all that MAE's descendants add to timm's names comes before it in the registry.
    """
    unknown = {}
    for format in reversed(FORMATS.values()):
        if format.readable:
            prepared = format.prepare(dict(state))
            unknown[format.name] = [key for key in prepared if not format.knows(key)]
    name = min(unknown, key=lambda name: len(unknown[name]))
    return FORMATS[name], unknown[name]
