"""Learned masking for OpenMMLab's masked-image pretraining.

Importing the package is light: it looks which frameworks are installed and loads none of them. Registered classes
are imported by mmengine through :mod:`mmmlo.registry` when a config first names one of them.
"""

import warnings
from importlib.util import find_spec

from mmmlo.version import __version__

__all__ = ['__version__']

# What the package cannot do anything without. mmseg and mmdet are needed by the transfer configs only.
_REQUIRED = ('torch', 'mmengine', 'mmcv', 'mmpretrain')

_missing = [name for name in _REQUIRED if find_spec(name) is None]
if _missing:
    warnings.warn(
        f'mmmlo cannot train or evaluate here, because these packages are missing: {", ".join(_missing)}. '
        'Run `bash tools/install.sh` in the project folder: it installs versions that work together.',
        RuntimeWarning,
        stacklevel=2)
