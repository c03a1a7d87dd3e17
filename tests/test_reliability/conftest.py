"""Processes that can be killed, and what two checkpoints have in common."""

import json
import os
import os.path as osp
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

TOOLS = osp.join(osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__)))), 'tools')


class ForkServer:
    """Starts ``tools/train.py``, or another tool, by ``fork_server.py``, which imports only once."""

    def __init__(self) -> None:
        # The model runs on one thread, without which it could not be forked either.
        env = dict(os.environ, OMP_NUM_THREADS='1', MKL_NUM_THREADS='1')
        script = osp.join(osp.dirname(osp.abspath(__file__)), 'fork_server.py')
        self._server = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def _ask(self, **request: Any) -> Any:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + '\n')
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(self, *arguments: Any, cwd: Any, environment: dict[str, str], script: str = 'train.py') -> int:
        """Start it in a process group of its own, with its output in ``output.txt``; returns the process id."""
        output, texts = osp.join(cwd, 'output.txt'), list(map(str, arguments))
        tool = osp.join(TOOLS, script)
        return self._ask(script=tool, arguments=texts, cwd=str(cwd), output=output, environment=environment)

    def wait(self, process: int, block: bool = True) -> int | None:
        """The exit code of a process, negative for a signal; None if it is still running."""
        return self._ask(wait=process, block=block)

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(60)


class Programs:
    """Starts ``tools/train.py`` as a user does, with all imports."""

    def __init__(self) -> None:
        self._processes: dict[int, subprocess.Popen] = {}

    def start(self, *arguments: Any, cwd: Any, environment: dict[str, str]) -> int:
        """As of :class:`ForkServer`."""
        env = dict(os.environ, OMP_NUM_THREADS='1', MKL_NUM_THREADS='1') | environment
        with open(osp.join(cwd, 'output.txt'), 'a') as output:
            process = subprocess.Popen(
                [sys.executable, osp.join(TOOLS, 'train.py'), *map(str, arguments)],
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._processes[process.pid] = process
        return process.pid

    def wait(self, process: int, block: bool = True) -> int | None:
        """As of :class:`ForkServer`."""
        started = self._processes[process]
        return started.wait(500) if block else started.poll()


@pytest.fixture(scope='session')
def fork_server():
    """A :class:`ForkServer`."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope='session')
def programs():
    """:class:`Programs`."""
    return Programs()


@pytest.fixture(scope='session')
def differences():
    """Where two nested structures differ by a bit; ``differences(a, b)`` returns the keys."""

    def find(a: Any, b: Any, key: str = '') -> list[str]:
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            return [] if a.dtype == b.dtype and torch.equal(a, b) else [key]
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            return [] if np.array_equal(a, b) else [key]
        if isinstance(a, dict) and isinstance(b, dict):
            if set(a) != set(b):
                return [f'{key}: {set(a) ^ set(b)}']
            return [found for name in a for found in find(a[name], b[name], f'{key}.{name}')]
        if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
            return [found for i, pair in enumerate(zip(a, b)) for found in find(*pair, f'{key}.{i}')]
        return [] if a == b else [key]

    return find


@pytest.fixture(scope='session')
def assert_same_state(differences):
    """Require that two checkpoints agree in all that training depends on, bit for bit."""

    def compare(a: dict, b: dict) -> None:
        for section in ('state_dict', 'optimizer', 'param_schedulers', 'train_loop'):
            assert differences(a[section], b[section], section) == []

    return compare
