"""Whether a wheel of mmcv has operators that load beside the torch of this environment. Used by tools/install.sh.

``python tools/wheel_check.py FILE`` exits with 0 if so, else says why not and exits with 1. It needs torch, and neither an
installed mmcv nor what mmcv depends on.
"""

import importlib.util
import sys
import tempfile
import zipfile

import torch  # noqa: F401  (the operators are linked against its libraries)


def main(path: str) -> str:
    """Return what is wrong with the wheel, or nothing."""
    try:
        with zipfile.ZipFile(path) as wheel, tempfile.TemporaryDirectory() as folder:
            names = [name for name in wheel.namelist() if name.startswith('mmcv/_ext') and name.endswith('.so')]
            if not names:
                return f'{path} was built without operators'
            spec = importlib.util.spec_from_file_location('_ext', wheel.extract(names[0], folder))
            importlib.util.module_from_spec(spec)
    except (OSError, zipfile.BadZipFile, ImportError) as error:
        return f'{path} does not load: {error}'
    return ''


if __name__ == '__main__':
    sys.exit(main(sys.argv[1]) or None)
