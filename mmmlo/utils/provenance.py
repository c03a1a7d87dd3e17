"""Where a result comes from: versions, the state of the project's git repository, the machine."""

import hashlib
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from mmmlo.version import __version__

__all__ = ['git_state', 'loaded_versions']

_PACKAGES = (
    'torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain', 'mmseg', 'mmdet', 'timm', 'numpy', 'cv2', 'PIL', 'sklearn'
)
_ROOT = Path(__file__).resolve().parents[2]
_MOST_FILES = 100


def loaded_versions() -> dict[str, str]:
    """Read the versions of Python, this project and those packages that this process has imported, by module."""
    versions = dict(python=platform.python_version(), platform=platform.platform(), mmmlo=__version__)
    found = {name: getattr(sys.modules.get(name), '__version__', None) for name in _PACKAGES}
    versions.update({name: str(version) for name, version in found.items() if version is not None})
    torch = sys.modules.get('torch')
    if torch is not None and torch.cuda.is_available():
        versions.update(cuda=str(torch.version.cuda), gpu=torch.cuda.get_device_name())
    return versions


def git_state(root: Path = _ROOT) -> dict[str, Any] | None:
    """Read the state of a git repository, by default this project's; None if it is none, or git is not there.

    ``changed`` has lines of ``git status --porcelain``, ``diff_sha256`` the hash of changes to files under version control.
    """
    # Without this test, a package installed inside another project's checkout would report that project's commit.
    if not (root / '.git').exists():
        return None

    def git(*arguments: str) -> bytes:
        return subprocess.run(['git', '-C', str(root), *arguments], capture_output=True, check=True, timeout=60).stdout

    try:
        commit = git('rev-parse', 'HEAD').decode().strip()
        changed = git('status', '--porcelain').decode(errors='replace').splitlines()
        diff = git('diff', 'HEAD', '--no-ext-diff', '--no-textconv')
    except (OSError, subprocess.SubprocessError):
        return None
    if len(changed) > _MOST_FILES:
        changed[_MOST_FILES:] = [f'and {len(changed) - _MOST_FILES} more']
    return dict(commit=commit, changed=changed, diff_sha256=hashlib.sha256(diff).hexdigest() if diff else None)
