"""Go to a scratch folder in which the project's commands work as in its own, for tutorials that are executed."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from IPython.core.magic import register_cell_magic

ROOT = Path(__file__).resolve().parents[2]
os.chdir(tempfile.mkdtemp())
for name in ('configs', 'tools'):
    os.symlink(ROOT / name, name)
paths = dict(PATH=str(Path(sys.executable).parent), PYTHONPATH=str(ROOT))
os.environ.update({name: os.pathsep.join([path, os.environ.get(name, '')]) for name, path in paths.items()})
os.environ['NO_COLOR'] = '1'
sys.path.insert(0, str(ROOT))


@register_cell_magic
def bash(line: str, cell: str) -> None:
    """Run a cell in place of IPython's magic, which hides failures before a pipe, and prints in pieces that break lines."""
    command = ['bash', '-e', '-o', 'pipefail', '-c', cell]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(result.stdout)
    result.check_returncode()
