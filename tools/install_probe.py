"""What tools/install.sh has to know about a Python environment. Standard library only; nothing is imported from it.

``python tools/install_probe.py KEY`` prints one answer, which is empty where there is nothing to report. The keys are the
functions below.
"""

import hashlib
import re
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# The fork installs the same modules under names with the prefix 'onedl-'; mmcls and mmcv-full are upstream's older names.
UPSTREAM = {
    'mmcls', 'mmcv', 'mmcv-full', 'mmcv-lite', 'mmdet', 'mmengine', 'mmengine-lite', 'mmpretrain', 'mmsegmentation'
}


def installed() -> dict[str, str]:
    """Versions of all distributions, by normalized name."""
    found = {}
    for dist in metadata.distributions():
        name = dist.metadata['Name']
        if name:  # an interrupted uninstall can leave a nameless one
            found[re.sub(r'[-_.]+', '-', name).lower()] = dist.version
    return found


def conflict() -> str:
    """Every OpenMMLab distribution, if any of them is upstream's."""
    names = installed()
    upstream = sorted(UPSTREAM.intersection(names))
    return ' '.join(upstream + sorted(name for name in names if name.startswith('onedl-'))) if upstream else ''


def headers() -> str:
    """The folder of Python.h."""
    include = Path(sysconfig.get_path('include'))
    return str(include) if (include / 'Python.h').exists() else ''


def torch() -> str:
    """The version of torch."""
    return installed().get('torch', '')


def torchvision() -> str:
    """The version of torchvision."""
    return installed().get('torchvision', '')


def platform() -> str:
    """Python's tag and the machine: what a compiled wheel is good for."""
    return f'{sys.implementation.cache_tag}-{sysconfig.get_platform()}'


def fingerprint() -> str:
    """A hash that changes when the installation no longer is what this project's files ask for."""
    names = installed()
    state = hashlib.sha256()
    for path in sorted([*ROOT.glob('requirements/*.txt'), ROOT / 'setup.py', ROOT / 'mmmlo' / 'version.py']):
        text = path.read_text(encoding='utf-8')
        state.update(text.encode())
        for line in text.splitlines():
            name = re.match(r'[\w.-]+', line)
            if name and path.suffix == '.txt':
                state.update(names.get(re.sub(r'[-_.]+', '-', name[0]).lower(), '').encode() + b'\n')
    # The editable installation points here, and a wheel of mmcv fits one Python and one torch.
    for value in (str(ROOT), names.get('mmmlo', ''), platform(), torch()):
        state.update(value.encode() + b'\n')
    return state.hexdigest()


if __name__ == '__main__':
    print(globals()[sys.argv[1]]())
