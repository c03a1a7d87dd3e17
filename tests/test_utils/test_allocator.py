import os
import resource
import subprocess
import sys

import pytest
import torch

from mmmlo.utils.allocator import keep_freed_memory

# Page faults of twenty tensors of 64 MiB, one after the other: memory that goes back to the system faults every time.
PROBE = """
import resource, sys
import torch
if sys.argv[1] == 'keep':
    from mmmlo.utils.allocator import keep_freed_memory
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
