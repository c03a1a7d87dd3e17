#!/usr/bin/env python
"""Prove this project on a GPU, in pieces and without a network, and write down what was found.

    python tools/gpu_check.py --data DIR [--minutes 30]     # again and again, until it says that nothing is left
    python tools/gpu_check.py --cpu                         # the whole list at a tiny size, where there is no GPU

A call ends within --piece minutes, and the next one goes on. --out gets gpu_check.md, gpu_check.json and gpu_check.log, all
small, and the folder work, which can be thrown away. Parts, each with a verdict (passed, failed and why, not reached, or
not possible here and why):

    a  environment, and the rate of large matrix products
    b  all tests marked gpu
    c  cycles of every method against the CPU in fp64: fp32, bf16, fp16; hypergradients against a dense reference
    d  resume after SIGKILL: with deterministic algorithms bit for bit; without, how far
    e  NCCL against gloo, on one GPU and on all
    f  speed of ViT-B/16 at 224 px, batch 256: eager, compiled, by CUDA graphs; beside mmpretrain and, with --released, the
       released codes; memory, operations, host waits
    g  the loaders at full rate beside a training
    h  mmcv's operators, built with nvcc from --mmcv where they are not there, and a detector's training step
    i  the study `methods`: MAE, MLO-MAE, CL-MAE, guided MAE; three seeds, kNN and linear, for as long as there is time

Exit status: 0; 1 if something failed; 3 if something is left for the next call.
"""

import argparse
import json
import os
import os.path as osp
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any, NamedTuple

ROOT = osp.dirname(osp.dirname(osp.realpath(__file__)))
sys.path.insert(0, ROOT)

from mmmlo.utils.process import Parser, run

PARTS = dict(a='environment', b='tests', c='against the CPU', d='resume', e='processes', f='speed', g='loaders',
             h='mmcv and a detector', i='study')  # fmt: skip
IMPOSSIBLE, NOT_REACHED = 'not possible here', 'not reached'


class Step(NamedTuple):
    """What runs in a process of its own: a function of benchmarks/gpu_steps.py with arguments, and seconds at most."""

    part: str
    call: tuple[str, ...]
    seconds: int = 200
    needs: str = ''  # 'gpu', or an option
    resumable: bool = False  # stopped, it goes on in the next piece

    @property
    def name(self) -> str:
        """str: In the report."""
        return ' '.join(self.call).replace('_', ' ')


STEPS = (
    Step('a', ('environment',)),
    Step('b', ('tests',), 400),
    Step('c', ('against_cpu', 'fp32', 'bf16'), 300),
    Step('c', ('against_cpu', 'fp16'), needs='gpu'),
    Step('c', ('hypergradient', 'float32', 'bfloat16')),
    Step('d', ('resume', 'deterministic')),
    Step('d', ('resume', 'as it is'), needs='gpu'),
    Step('e', ('processes', 'one'), needs='gpu'),
    Step('e', ('processes', 'all')),
    Step('f', ('speed', 'mmpretrain', 'eager')),
    Step('f', ('speed', 'MAE', 'eager', 'compiled'), 300),
    Step('f', ('speed', 'MAE', 'graphs'), needs='gpu'),
    Step('f', ('speed', 'MLO-MAE', 'eager', 'compiled'), 300),
    Step('f', ('speed', 'CL-MAE', 'eager', 'compiled'), 300),
    Step('f', ('released',), 400, 'released'),
    Step('g', ('loaders',), 300),
    Step('h', ('build_mmcv',), 480, 'gpu', True),
    Step('h', ('operators',)),
    Step('h', ('detector',), 300),
    Step('i', ('study',), 480, 'data', True),
)  # fmt: skip


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('--out', default='work_dirs/gpu_check', metavar='DIR', help='default: work_dirs/gpu_check')
    parser.add_argument('--minutes', type=int, default=30, help='of all calls together; default: 30')
    parser.add_argument('--piece', type=float, default=8.5, help='minutes of this call; default: 8.5')
    parser.add_argument('--parts', default=''.join(PARTS), help='letters of the parts; default: all')
    parser.add_argument('--cpu', action='store_true', help='without a GPU, at a tiny size')
    parser.add_argument('--data', metavar='DIR', help='ten classes of 32 px, train/<class>/* and test/<class>/*, for part i')
    parser.add_argument('--released', metavar='DIR', help='a folder with checkouts MLO-MAE, cl-mae and betty, for part f')
    parser.add_argument('--mmcv', metavar='FILE', help="onedl-mmcv's source, a tar.gz, for part h")
    args = parser.read(minutes=1)
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f'--parts: there is no {", ".join(sorted(unknown))}; parts are {", ".join(PARTS)}')
    return args


def run_step(step: Step, args: argparse.Namespace, seconds: float, left: float) -> dict[str, Any] | None:
    """Run a step; None if it was stopped and can go on."""
    work = osp.join(args.out, 'work')
    os.makedirs(work, exist_ok=True)
    result, log = osp.join(work, 'result.json'), osp.join(work, 'step.log')
    if osp.exists(result):
        os.remove(result)
    command = [sys.executable, osp.join(ROOT, 'tools/benchmarks/gpu_steps.py'), *step.call, '--work', work,
               '--minutes', f'{left / 60:.1f}']  # fmt: skip
    for name in ('data', 'released', 'mmcv'):
        if vars(args)[name]:
            command += [f'--{name}', osp.abspath(vars(args)[name])]
    command += ['--cpu'] if args.cpu else []
    paths = [osp.abspath(osp.join(work, 'mmcv')), ROOT, os.environ.get('PYTHONPATH', '')]  # first mmcv as it was built there
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(paths))
    begin, stopped = time.monotonic(), False
    with open(log, 'wb') as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
        try:
            process.wait(seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
            stopped = True
            for number in (signal.SIGTERM, signal.SIGKILL):  # a training saves at the first one
                with suppress(subprocess.TimeoutExpired, ProcessLookupError):
                    os.killpg(process.pid, number)
                    process.wait(20)
                    break
            if isinstance(error, KeyboardInterrupt):
                raise
    with open(log, encoding='utf-8', errors='replace') as file:
        text = file.read()[-100_000:]
    with open(osp.join(args.out, 'gpu_check.log'), 'a', encoding='utf-8') as file:
        file.write(f'\n=== {step.part} {step.name}\n{text}')
    took = round(time.monotonic() - begin, 1)
    if osp.exists(result):
        with open(result, encoding='utf-8') as file:
            return dict(json.load(file), seconds=took)
    if stopped and step.resumable:
        return None
    lines = [line for line in text.splitlines() if line.strip()]
    reason = f'it took longer than {seconds:.0f} s' if stopped else (lines or ['it ended without a word'])[-1][:500]
    return dict(verdict='failed', reason=reason, figures={}, seconds=took)


def verdict(found: list[dict[str, Any] | None]) -> str:
    """The verdict on a part, from those of its steps."""
    kinds = [NOT_REACHED if each is None else each['verdict'] for each in found]
    passed = [kind for kind in kinds if kind != IMPOSSIBLE]
    return next((kind for kind in ('failed', NOT_REACHED, 'passed') if kind in passed), IMPOSSIBLE)


def report(state: dict[str, Any], parts: str) -> str:
    """What is known, in Markdown."""
    results = state['results']
    lines = ['# What was checked', '', '| part | verdict | steps |', '|---|---|---|']
    chosen = {part: [step for step in STEPS if step.part == part] for part in PARTS if part in parts}
    for part, steps in chosen.items():
        found = [results.get(step.name) for step in steps]
        counts = f'{sum(each is not None and each["verdict"] == "passed" for each in found)} of {len(steps)} passed'
        lines.append(f'| {part} {PARTS[part]} | **{verdict(found)}** | {counts} |')
    lines += ['', f'{state["spent"] / 60:.1f} minutes, in `{state["command"]}`.']
    for part, steps in chosen.items():
        lines += ['', f'## {part} {PARTS[part]}', '', '| step | verdict | seconds | figures |', '|---|---|---|---|']
        for step in steps:
            one = results.get(step.name) or dict(verdict=NOT_REACHED, reason='', seconds='', figures={})
            said = f'{one["verdict"]}: {one["reason"]}' if one['reason'] else one['verdict']
            figures = '; '.join(f'{name} {value}' for name, value in one['figures'].items())
            lines.append('| ' + ' | '.join(str(x).replace('|', '/').replace('\n', ' ') for x in (
                step.name, said, one['seconds'], figures)) + ' |')  # fmt: skip
    speeds = {
        (step.call[1], mode): results[step.name]['figures'][f'{mode} ms']
        for step in chosen.get('f', ()) if step.call[0] == 'speed' and step.name in results
        for mode in step.call[2:] if f'{mode} ms' in results[step.name]['figures']
    }  # fmt: skip
    if base := speeds.get(('MAE', 'eager')):
        lines += ['', '| two iterations | ms | over our MAE, eager |', '|---|---|---|']
        lines += [f'| {" ".join(name)} | {ms} | {ms / base:.2f} |' for name, ms in speeds.items()]
    return '\n'.join(lines) + '\n'


def write(state: dict[str, Any], args: argparse.Namespace) -> None:
    """Write the report and the state from which the next call goes on."""
    for name, text in (('gpu_check.json', json.dumps(state, indent=1)), ('gpu_check.md', report(state, args.parts))):
        with open(osp.join(args.out, name), 'w', encoding='utf-8') as file:
            file.write(text)


def main() -> int:
    """Run what is left, as far as the time goes."""
    args = parse_args()
    os.makedirs(args.out, exist_ok=True)
    path, begin = osp.join(args.out, 'gpu_check.json'), time.monotonic()
    state: dict[str, Any] = dict(spent=0.0, results={})
    if osp.exists(path):
        with open(path, encoding='utf-8') as file:
            state = json.load(file)
    before, state['command'] = state['spent'], ' '.join(['python', *sys.argv])
    left_over = []
    for step in (step for step in STEPS if step.part in args.parts and step.name not in state['results']):
        wants = step.needs == 'gpu' and args.cpu or step.needs in vars(args) and not vars(args)[step.needs]
        if wants and not (args.cpu and step.needs == 'data'):  # a CPU trains on digits
            reason = 'needs a GPU' if step.needs == 'gpu' else f'needs --{step.needs}'
            state['results'][step.name] = dict(verdict=IMPOSSIBLE, reason=reason, seconds=0, figures={})
            continue
        spent = time.monotonic() - begin
        piece, left = 60 * args.piece - spent, 60 * args.minutes - before - spent
        room = min(piece - 25, left)
        # What would be cut short waits for the next piece, unless there is none.
        enough = 60 if step.resumable else min(step.seconds, 60 * args.piece - 30) if left > piece else 20
        if left_over or room < enough:
            left_over.append(step)
            continue
        print(f'{step.part} {step.name} ...', end=' ', flush=True)
        result = run_step(step, args, min(step.seconds, room), left)
        if result is None:
            left_over.append(step)
        else:
            state['results'][step.name] = result
        state['spent'] = before + time.monotonic() - begin
        write(state, args)
        print('to go on' if result is None else f'{result["verdict"]} {result["reason"]}', flush=True)
    write(state, args)
    print(f'Written: {args.out}/gpu_check.md, gpu_check.json, gpu_check.log')
    if left_over and before + time.monotonic() - begin + 60 < 60 * args.minutes:
        print(f'{len(left_over)} steps are left: the same command goes on')
        return 3
    return 1 if any(result['verdict'] == 'failed' for result in state['results'].values()) else 0


if __name__ == '__main__':
    run(main, status=2)
