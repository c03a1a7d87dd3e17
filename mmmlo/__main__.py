"""Run a tool by its name, wherever the package is installed: ``python -m mmmlo train CONFIG``."""

import runpy
import sys
from pathlib import Path

_TOOLS = Path(__file__).resolve().parent / '.mim' / 'tools'


def main() -> None:
    """Run the tool that the command line names first."""
    tools = {path.stem: str(path) for path in sorted(_TOOLS.rglob('*.py')) if 'Parser(' in path.read_text(encoding='utf-8')}
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name not in tools:
        print(f'usage: python -m mmmlo TOOL ...\nTOOL is one of {", ".join(tools)}', file=sys.stderr)
        sys.exit(0 if name in ('-h', '--help') else 2)
    sys.argv[:2] = [tools[name]]
    runpy.run_path(tools[name], run_name='__main__')


if __name__ == '__main__':
    main()
