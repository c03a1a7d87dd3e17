"""Starts tools without importing all of it anew for each: imports once, and forks.

Each process that it starts is one of its own, which can be killed and sends its output to a file. What comes in on standard
input are requests, a line of JSON each; what goes out are the answers.
"""

import gc
import json
import os
import runpy
import sys


def _serve() -> None:
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what is printed while importing is none
    from yapf.yapflib import yapf_api

    import mmmlo.datasets
    import mmmlo.engine
    import mmmlo.models  # noqa: F401

    # Nine tenths of a short run would be the formatting of its config.
    yapf_api.FormatCode = lambda text, **_: (text, True)
    gc.freeze()  # nor is it to be collected for each data set that a process builds
    for line in sys.stdin:
        request = json.loads(line)
        if 'wait' in request:
            process, status = os.waitpid(request['wait'], 0 if request['block'] else os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if process else None
        else:
            answer = os.fork()
            if not answer:
                _become(**request)
                return
        print(json.dumps(answer), file=answers, flush=True)


def _become(script: str, arguments: list[str], cwd: str, output: str, environment: dict[str, str]) -> None:
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.chdir(cwd)
    os.environ.update(environment)
    sys.path += environment.get('PYTHONPATH', '').split(os.pathsep)  # which is read when Python starts
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name='__main__')


if __name__ == '__main__':
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    _serve()
