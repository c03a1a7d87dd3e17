import subprocess
import sys


def test_imports_alone():
    """In a fresh process, with nothing imported before: the fixes of mmmlo.compat must come before mmpretrain."""
    result = subprocess.run([sys.executable, '-c', 'import mmmlo.models'], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
