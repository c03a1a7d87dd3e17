"""How the command-line tools start: threads, allocator, the options that they share, and errors of the user's as one line.

Nothing heavy is imported before the command line has been read: OpenMP reads its settings when PyTorch is imported, and
``--help`` should not wait for that.
"""

import argparse
import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from glob import glob
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NoReturn

from mmmlo import compat
from mmmlo.utils.errors import MmmloError

__all__ = ['THREADS', 'Parser', 'keep_freed_memory', 'one_line_errors', 'run', 'start', 'tune_process']

# PyTorch's threads spin while they wait for each other. Beside any other busy process, such as a data worker, they spin
# while the one that they wait for is not running, and a step takes many times as long. GNU's OpenMP, which comes with
# PyTorch, may spin a thousand times before it sleeps: without, a step alone takes a sixth longer in place of a twentieth.
THREADS = {'OMP_WAIT_POLICY': 'passive', 'GOMP_SPINCOUNT': '1000', 'KMP_BLOCKTIME': '0'}
# Parameters of glibc's mallopt(3), and the values that tools/env.sh sets for what the launchers start.
_ALLOCATOR = {'MALLOC_MMAP_MAX_': (-4, 0), 'MALLOC_TRIM_THRESHOLD_': (-1, -1), 'MALLOC_TOP_PAD_': (-2, 256 * 2**20)}


def tune_process() -> None:
    """Let waiting threads sleep, and keep freed memory; what the environment sets is left alone. Before PyTorch's import."""
    if 'OMP_WAIT_POLICY' not in os.environ:
        os.environ.setdefault('GOMP_SPINCOUNT', THREADS['GOMP_SPINCOUNT'])  # it would overrule a policy of the user's
    for name in ('OMP_WAIT_POLICY', 'KMP_BLOCKTIME'):
        os.environ.setdefault(name, THREADS[name])
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory, unless there is a GPU, and tell whether anything was set.

    A training step on a CPU allocates and frees the same large tensors again and again. By default glibc maps and unmaps
    them each time, and clearing their pages costs up to a third of the time.
    """
    if glob('/dev/nvidia[0-9]*') or os.path.exists('/dev/dxg') or os.path.exists('/dev/kfd'):
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if os.name == 'posix' else None
    if mallopt is None:
        return False
    wanted = [setting for name, setting in _ALLOCATOR.items() if name not in os.environ]
    return bool(wanted) and all([mallopt(parameter, value) for parameter, value in wanted])


class _CfgOptions(argparse.Action):
    """mmengine's ``DictAction``, imported where the option is given."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        from mmengine.config import DictAction

        DictAction(self.option_strings, self.dest)(parser, namespace, values, option_string)


class Parser(argparse.ArgumentParser):
    """A command line whose errors are one line, described by the first line of the tool's docstring."""

    def __init__(self, doc: str, **kwargs: Any) -> None:
        super().__init__(description=doc.splitlines()[0], **kwargs)
        self.add_argument('--traceback', action='store_true', help='show where an error was raised, not its line alone')

    def add_cfg_options(self, **kwargs: Any) -> None:
        """Add ``--cfg-options``."""
        text = 'override settings, as in a.b=1 c="[x,y]"'
        self.add_argument('--cfg-options', nargs='+', action=_CfgOptions, **{'help': text, **kwargs})

    def add_launcher(self) -> None:
        """Add ``--launcher`` and the rank that PyTorch's older launcher gives."""
        self.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
        self.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)

    def read(self, argv: Sequence[str] | None = None, **least: int) -> argparse.Namespace:
        """Read the command line; ``least`` has the smallest values of options that are numbers or lists of them."""
        args = self.parse_args(argv)
        for name, bound in least.items():
            value = getattr(args, name)
            if value is not None and min(value if isinstance(value, list) else [value]) < bound:
                self.error(f'--{name.replace("_", "-")} must be at least {bound}, got {value}')
        if 'local_rank' in args:
            os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
        return args

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with 2."""
        self.exit(2, f'error: {message}\n')


def start(name: str, parse_args: Callable[[], Any]) -> None:
    """Prepare the process of a tool, by its ``__name__``, before it imports PyTorch or a framework.

    Wrong usage and ``--help`` end here. In a module that is imported, by a test or a child process, the environment is left
    as it is. The frameworks' fixes are applied; what mmpretrain and mmseg print when imported goes to the standard error.
    """
    if name == '__main__':
        parse_args()
        tune_process()
    with redirect_stdout(sys.stderr):
        compat.apply()
        for module in ('mmpretrain.datasets', 'mmpretrain.models', 'mmseg.datasets'):
            if find_spec(module.split('.')[0]) is not None:
                import_module(module)


@contextmanager
def one_line_errors(status: int = 1) -> Iterator[None]:
    """Print an error of the user's as one line, and exit; any that is no :class:`MmmloError` keeps its traceback."""
    try:
        yield
    except MmmloError as error:
        if '--traceback' in sys.argv:
            raise
        # Out of a loader's worker the message comes below the worker's traceback.
        text = str(error).strip()
        if text.startswith('Caught '):
            text = text.splitlines()[-1].rpartition(f'{type(error).__name__}: ')[2]
        print(f'error: {text}', file=sys.stderr)
        sys.exit(status)


def run(main: Callable[[], Any], status: int = 1) -> NoReturn:
    """Call a tool's main function and exit with what it returns, or with ``status`` after an error of the user's."""
    with one_line_errors(status):
        sys.exit(main())
