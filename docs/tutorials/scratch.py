"""Go to a scratch folder in which the project's commands work as in its own, for tutorials that are executed."""

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
os.chdir(tempfile.mkdtemp())
for name in ('configs', 'tools'):
    os.symlink(ROOT / name, name)
paths = dict(PATH=str(Path(sys.executable).parent), PYTHONPATH=str(ROOT))
os.environ.update({name: os.pathsep.join([path, os.environ.get(name, '')]) for name, path in paths.items()})
os.environ['NO_COLOR'] = '1'
os.environ['SHELLOPTS'] = 'errexit:pipefail'  # a command that fails is a cell that fails
sys.path.insert(0, str(ROOT))
