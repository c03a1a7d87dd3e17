"""Report the environment, and check that it can run this project.

Run ``python -m mmmlo.utils.collect_env``. It prints versions, and exits with 1 and one line a problem when something is
missing or does not work. Every import of a framework is guarded, so that it can describe an environment in which none works.
"""

import importlib
import os
import platform
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

from mmmlo import compat
from mmmlo.version import __version__

__all__ = ['collect_env', 'find_problems', 'main']

# Printed name -> modules to import, the first of which has ``__version__``. The second ones are there because the
# packages import little by themselves: a missing dependency, or mmcv without operators, shows only below them.
_PACKAGES = {
    'torchvision': ('torchvision', ),
    'mmengine': ('mmengine', ),
    'mmcv': ('mmcv', ),
    'mmpretrain': ('mmpretrain', 'mmpretrain.models'),
    'mmsegmentation': ('mmseg', 'mmseg.models'),
    'mmdetection': ('mmdet', 'mmdet.models'),
    'timm': ('timm', ),
    'numpy': ('numpy', ),
    'OpenCV': ('cv2', ),
    'scikit-learn': ('sklearn', ),
    'matplotlib': ('matplotlib', ),
}

_FAILED = 'FAILED: '


def collect_env() -> dict[str, str]:
    """Look at this process's environment.

    Returns:
        dict[str, str]: What was found, by printable name, in printing order. The value of something that is missing or
        does not work starts with ``'FAILED: '``.
    """
    env = {
        'mmmlo': _project_version(),
        'Platform': platform.platform(),
        'Python': f'{platform.python_version()} ({sys.executable})',
        'C++ compiler': _output(*shlex.split(os.environ.get('CXX', 'c++')), '--version')[0] or 'none',
        'nvcc': _output('nvcc', '--version')[-1] or 'none',
    }
    env.update(_torch())
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the frameworks' deprecation warnings would bury the report
        try:
            compat.apply()
        except Exception as error:
            env['compatibility fixes'] = _failure(error)
        for name, modules in _PACKAGES.items():
            env[name] = _version(modules)
            if name == 'mmcv':
                env['mmcv operators'] = _mmcv_operators()
    return env


def find_problems(env: dict[str, str]) -> list[str]:
    """List what keeps the project from running, one line a problem, in the result of :func:`collect_env`."""
    return [f'{name}: {value[len(_FAILED):]}' for name, value in env.items() if value.startswith(_FAILED)]


def main() -> int:
    """Print the report, and return 0 if the project can run here, else 1."""
    env = collect_env()
    width = max(map(len, env))
    for name, value in env.items():
        print(f'{name:<{width}}  {value}')
    problems = find_problems(env)
    if not problems:
        print('\nEverything that mmmlo needs works.')
        return 0
    sys.stdout.flush()  # so that the problems come last where both streams end in one file
    advice = '`bash tools/install.sh --force` in the project folder repairs an installation:'
    print(f'\n{len(problems)} problem(s). {advice}', *problems, sep='\n  ', file=sys.stderr)
    return 1


def _project_version() -> str:
    root = Path(__file__).resolve().parents[2]
    # Without this test, a package installed inside another project's checkout would report that project's commit.
    if not (root / '.git').exists():
        return __version__
    commit = _output('git', '-C', str(root), 'describe', '--always', '--dirty', '--abbrev=7', '--exclude=*')[0]
    return f'{__version__}+{commit}' if commit else __version__


def _torch() -> dict[str, str]:
    try:
        torch = importlib.import_module('torch')
    except Exception as error:
        return {'torch': _failure(error)}
    env = {'torch': torch.__version__, 'CUDA of torch': torch.version.cuda or 'none'}
    if torch.cuda.is_available():
        env['cuDNN'] = str(torch.backends.cudnn.version())
        for index in range(torch.cuda.device_count()):
            env[f'GPU {index}'] = torch.cuda.get_device_name(index)
    else:
        env['GPU'] = 'none'
    env['CPU threads'] = str(torch.get_num_threads())
    return env


def _version(modules: tuple[str, ...]) -> str:
    try:
        package = [importlib.import_module(module) for module in modules][0]
    except Exception as error:
        return _failure(error)
    return str(package.__version__)


def _mmcv_operators() -> str:
    try:
        importlib.import_module('mmcv._ext')
        torch = importlib.import_module('torch')
        ops = importlib.import_module('mmcv.ops')
        boxes = torch.tensor([[0., 0., 10., 10.], [1., 1., 10., 10.], [20., 20., 30., 30.]])
        kept = ops.nms(boxes, torch.tensor([0.8, 0.9, 0.7]), 0.5)[1].tolist()
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == 'mmcv._ext':
            return f'{_FAILED}this mmcv was built without operators, which mmdet needs'
        return _failure(error)
    return 'built for torch here, nms runs' if kept == [1, 2] else f'{_FAILED}nms kept boxes {kept}, not [1, 2]'


def _failure(error: Exception) -> str:
    """Describe a failed import in one line, with the remedy where reinstalling would not help."""
    text = ' '.join(str(error).split())
    if 'libGL.so' in text or 'libgthread' in text or 'libglib' in text:
        text += '. OpenCV needs system libraries: on Debian or Ubuntu, `apt-get install libgl1 libglib2.0-0`'
    return f'{_FAILED}{type(error).__name__}: {text}'


def _output(*command: str) -> list[str]:
    """The lines that a program prints; one empty line if it is not there or fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ['']
    return result.stdout.strip().splitlines() or ['']


if __name__ == '__main__':
    sys.exit(main())
