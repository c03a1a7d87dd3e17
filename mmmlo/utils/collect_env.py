"""Report the environment, and check that it can run this project.

Run ``python -m mmmlo.utils.collect_env``. It prints versions, and exits with 1 and one line a problem when something is
missing or does not work. Every import of a framework is guarded, so that it can describe an environment in which none works.
"""

import platform
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module

from mmmlo import compat
from mmmlo.utils.provenance import git_state
from mmmlo.version import __version__

__all__ = ['collect_env', 'find_problems', 'main']

# Printed name -> module that shows whether all is there: packages import little by themselves.
_PACKAGES = {
    'torch': 'torch', 'torchvision': 'torchvision', 'mmengine': 'mmengine', 'mmcv': 'mmcv', 'timm': 'timm', 'numpy': 'numpy',
    'mmpretrain': 'mmpretrain.models', 'mmsegmentation': 'mmseg.models', 'mmdetection': 'mmdet.models', 'OpenCV': 'cv2',
    'scikit-learn': 'sklearn', 'matplotlib': 'matplotlib',
}
# What mmengine knows besides.
_MACHINE = ('CUDA available', 'GPU', 'NVCC', 'GCC', 'MSVC')
_FAILED = 'FAILED: '


def collect_env() -> dict[str, str]:
    """Look at this process's environment.

    Returns:
        dict[str, str]: What was found, by printable name, in printing order. The value of something that is missing or
        does not work starts with ``'FAILED: '``.
    """
    state = git_state()
    commit = f'+{state["commit"][:7]}{"-dirty" if state["changed"] else ""}' if state else ''
    env = {'mmmlo': f'{__version__}{commit}', 'Platform': platform.platform()}
    env['Python'] = f'{platform.python_version()} ({sys.executable})'
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the frameworks' deprecation warnings would bury the report
        env['compatibility fixes'] = _try(_apply_fixes)
        for name, module in _PACKAGES.items():
            env[name] = _try(partial(_version, module))
        env['mmcv operators'] = _try(_mmcv_operators)
        try:
            found = import_module('mmengine.utils.dl_utils').collect_env()
            env.update({key: str(value) for key, value in found.items() if key.startswith(_MACHINE)})
        except Exception:  # without mmengine or torch, which is told above
            pass
    return env


def find_problems(env: dict[str, str]) -> list[str]:
    """List what keeps the project from running, one line a problem, in the result of :func:`collect_env`."""
    return [f'{name}: {value[len(_FAILED):]}' for name, value in env.items() if value.startswith(_FAILED)]


def main() -> int:
    """Print the report, and return 0 if the project can run here, else 1."""
    env = collect_env()
    for name, value in env.items():
        print(f'{name:<{max(map(len, env))}}  {value}')
    problems = find_problems(env)
    if not problems:
        print('\nEverything that mmmlo needs works.')
        return 0
    sys.stdout.flush()  # so that the problems come last where both streams end in one file
    advice = '`bash tools/install.sh --force` in the project folder repairs an installation:'
    print(f'\n{len(problems)} problem(s). {advice}', *problems, sep='\n  ', file=sys.stderr)
    return 1


def _apply_fixes() -> str:
    compat.apply()
    return 'applied'


def _version(module: str) -> str:
    import_module(module)
    return str(import_module(module.split('.')[0]).__version__)


def _mmcv_operators() -> str:
    try:
        import_module('mmcv._ext')
    except ModuleNotFoundError as error:
        if error.name == 'mmcv._ext':
            return f'{_FAILED}this mmcv was built without operators, which mmdet needs'
        raise
    torch = import_module('torch')
    boxes = torch.tensor([[0., 0., 10., 10.], [1., 1., 10., 10.], [20., 20., 30., 30.]])
    kept = import_module('mmcv.ops').nms(boxes, torch.tensor([0.8, 0.9, 0.7]), 0.5)[1].tolist()
    return 'built for torch here, nms runs' if kept == [1, 2] else f'{_FAILED}nms kept boxes {kept}, not [1, 2]'


def _try(look: Callable[[], str]) -> str:
    """Look, or describe the failure in one line, with the remedy where reinstalling would not help."""
    try:
        return look()
    except Exception as error:
        text = ' '.join(str(error).split())
        if 'libGL.so' in text or 'libgthread' in text or 'libglib' in text:
            text += '. OpenCV needs system libraries: on Debian or Ubuntu, `apt-get install libgl1 libglib2.0-0`'
        return f'{_FAILED}{type(error).__name__}: {text}'


if __name__ == '__main__':
    sys.exit(main())
