"""Every tool starts, in a process of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'

SCRIPTS = sorted(str(path.relative_to(TOOLS)) for path in TOOLS.rglob('*.py') if 'Parser(' in path.read_text())


@pytest.mark.parametrize('script', SCRIPTS)
def test_help_comes_before_pytorch(script, tmp_path):
    command = [sys.executable, '-X', 'importtime', str(TOOLS / script), '--help']
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0 and result.stdout.startswith('usage: ') and '--traceback' in result.stdout
    assert not re.search(r'\| +(torch|mmcv)$', result.stderr, re.MULTILINE)
