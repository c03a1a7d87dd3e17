import os
import resource
import subprocess
import sys

import pytest
import torch

from mmmlo.utils.errors import DataError
from mmmlo.utils.process import THREADS, Parser, keep_freed_memory, one_line_errors, tune_process

# Page faults of twenty tensors of 64 MiB, one after the other: memory that goes back to the system faults every time.
PROBE = """
import resource, sys
import torch
if sys.argv[1] == 'keep':
    from mmmlo.utils.process import keep_freed_memory
    print(keep_freed_memory())
else:
    print(None)
for _ in range(20):
    torch.ones(2**24)  # the heap grows at first
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def probe(argument):
    env = {name: value for name, value in os.environ.items() if not name.startswith('MALLOC_')}
    output = subprocess.run([sys.executable, '-c', PROBE, argument], env=env, capture_output=True, text=True, check=True)
    first, last = output.stdout.split()
    return first, int(last)


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc is what this is about')
@pytest.mark.skipif(torch.cuda.is_available(), reason='beside a GPU nothing is set')
def test_freed_memory_is_kept():
    done, faults = probe('keep')
    assert done == 'True'
    _, without = probe('leave')
    pages = 2**26 // resource.getpagesize()
    assert faults < pages / 4 and without > 4 * faults


def test_the_environment_has_the_last_word(monkeypatch):
    for name in ('MALLOC_MMAP_MAX_', 'MALLOC_TRIM_THRESHOLD_', 'MALLOC_TOP_PAD_'):
        monkeypatch.setenv(name, '1')
    assert not keep_freed_memory()


def test_waiting_threads_sleep_unless_the_environment_says_otherwise(monkeypatch):
    for name in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'):
        monkeypatch.setenv(name, '')  # to be put back
        monkeypatch.delenv(name)
    monkeypatch.setenv('KMP_BLOCKTIME', '7')
    tune_process()
    assert [os.environ[name] for name in THREADS] == ['passive', '1000', '7']
    # A spin count would overrule a policy of the user's.
    monkeypatch.setenv('OMP_WAIT_POLICY', 'active')
    monkeypatch.delenv('GOMP_SPINCOUNT')
    tune_process()
    assert os.environ['OMP_WAIT_POLICY'] == 'active' and 'GOMP_SPINCOUNT' not in os.environ
    # A tool of its own process has it too, before PyTorch is there.
    code = "import sys, os; from mmmlo.utils.process import start; start('__main__', lambda: print('torch' in sys.modules))"
    clean = {name: value for name, value in os.environ.items() if name != 'OMP_WAIT_POLICY'}
    command = [sys.executable, '-c', f"{code}; print(os.environ['OMP_WAIT_POLICY'], 'torchvision' in sys.modules)"]
    output = subprocess.run(command, env=clean, capture_output=True, text=True, check=True).stdout
    assert output.splitlines() == ['False', 'passive True']


def test_errors_of_the_user_s_are_one_line(capsys, monkeypatch):
    error = DataError('Caught DataError in DataLoader worker process 0.\nTraceback ...\n  line\na.b.DataError: x.png: torn')
    with pytest.raises(SystemExit) as ended, one_line_errors(2):
        raise error
    assert ended.value.code == 2 and capsys.readouterr().err == 'error: x.png: torn\n'
    with pytest.raises(ValueError, match='a library'), one_line_errors():
        raise ValueError('a library')
    monkeypatch.setattr(sys, 'argv', ['tool.py', '--traceback'])
    with pytest.raises(DataError), one_line_errors():
        raise error


def test_parser(capsys):
    parser = Parser('What it does.')
    parser.add_argument('--cycles', type=int, nargs='+')
    parser.add_cfg_options()
    assert parser.read(['--cycles', '1', '--cfg-options', 'a.b=[1,2]'], cycles=1).cfg_options == {'a.b': [1, 2]}
    for wrong, line in (('1 0', '--cycles must be at least 1, got [1, 0]'), ('x', 'invalid int')):
        with pytest.raises(SystemExit) as ended:
            parser.read(['--cycles', *wrong.split()], cycles=1)
        printed = capsys.readouterr().err
        assert ended.value.code == 2 and printed.startswith('error: ') and line in printed and printed.count('\n') == 1
