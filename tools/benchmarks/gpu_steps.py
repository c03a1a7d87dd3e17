#!/usr/bin/env python
"""One step of tools/gpu_check.py, in a process of its own: its verdict and figures go to result.json of --work.

    python tools/benchmarks/gpu_steps.py speed MLO-MAE eager compiled --work DIR [--cpu]
"""

import argparse
import glob
import json
import os
import os.path as osp
import re
import signal
import statistics
import subprocess
import sys
import tarfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

HERE = osp.dirname(osp.realpath(__file__))
TOOLS = osp.dirname(HERE)
ROOT = osp.dirname(TOOLS)
sys.path[:0] = [HERE, TOOLS, ROOT]

from options import Shape

from mmmlo.utils.process import Parser, run, start


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('call', nargs='+', help='a function of this file, and its arguments')
    parser.add_argument('--work', required=True, metavar='DIR', help='where everything is written')
    parser.add_argument('--minutes', type=float, default=30, help='left in all, for the study')
    parser.add_argument('--cpu', action='store_true', help='at a tiny size')
    for name in ('data', 'released', 'mmcv'):
        parser.add_argument(f'--{name}', help=f'see tools/gpu_check.py --{name}')
    return parser.read()


start(__name__, parse_args)

import torch
from check_hypergradient import SameDraws, check, draw_batches
from measure import Worker, prepare, time_call
from mmengine.optim import build_optim_wrapper
from profile_cycle import peak_rate, profile_cycle
from torch.utils._pytree import tree_leaves, tree_map
from variants import CONFIGS, Training, build_cycle, config, mmpretrain_config

from mmmlo.engine import compile_blocks
from mmmlo.launch.config import enable_amp, load_config
from mmmlo.launch.resume import named_checkpoint
from mmmlo.launch.shrink import shrink
from mmmlo.registry import MODELS
from mmmlo.utils.collect_env import collect_env, find_problems
from mmmlo.utils.config import is_multi_level

DIGITS = 'nano-p4_1xb64-coslr-20e_digits'
FOLDER = 'mini-p4_1xb128-coslr-50e_image-folder'
MLO_MAE = osp.join(CONFIGS, f'mlo_mae/mlo-mae_vit-{DIGITS}.py')
BASE = Shape(768, 12, 12, 512, 8, 16, 224, 16, 256)
TINY = Shape(24, 1, 2, 16, 1, 4, 32, 4, 8)
# Largest relative difference to fp64 of what two cycles log. In half precision some scores change places.
TOLERANCES = dict(fp32=2e-3, bf16=0.1, fp16=0.03)
NMS = 'import torch, mmcv.ops; mmcv.ops.nms(torch.rand(4, 4).cuda(), torch.rand(4).cuda(), 0.5)'

Result = tuple[bool, str, Mapping[str, Any]]
"""Whether it passed, why not, and figures."""


class Impossible(Exception):
    """It cannot be done here."""


class Steps:
    """The steps, each a method; those of tools/gpu_check.py."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.cpu, self.work = args, args.cpu, osp.abspath(args.work)
        if not self.cpu and not torch.cuda.is_available():
            raise Impossible('there is no GPU')
        self.device = 'cpu' if self.cpu else 'cuda'

    def _pytest(self, *arguments: str) -> Result:
        command = [sys.executable, '-m', 'pytest', '-q', '-rs', '-p', 'no:cacheprovider', '--rootdir', ROOT, *arguments]
        output = subprocess.run(command, cwd=self.work, stdout=subprocess.PIPE, text=True).stdout
        print(output)
        counts = {kind: int(count) for count, kind in re.findall(r'(\d+) (passed|failed|skipped|error)', output)}
        if counts and 'passed' not in counts and counts.keys() <= {'skipped'}:
            raise Impossible((re.findall(r'^SKIPPED.*?: (.*)', output, re.MULTILINE) or ['no test ran'])[0])
        failed = ' '.join(re.findall(r'^(?:FAILED|ERROR) (\S+)', output, re.MULTILINE))
        return counts.keys() <= {'passed', 'skipped'} and bool(counts), failed or output.strip()[-300:], counts

    def environment(self) -> Result:
        """Versions, and the rate of a large matrix product."""
        found, dtypes = collect_env(), [torch.float32] if self.cpu else [torch.float32, torch.bfloat16, torch.float16]
        rates = {f'{str(d)[6:]} TFLOP/s': round(peak_rate(self.device, d) / 1e12, 3) for d in dtypes}
        if not self.cpu:
            found['NCCL'] = str(torch.cuda.nccl.version())
        problems = find_problems(found)
        return not problems, '; '.join(problems), dict(found, cores=os.cpu_count(), **rates)

    def tests(self) -> Result:
        """All that are marked gpu."""
        files = glob.glob(osp.join(ROOT, 'tests/**/test_*.py'), recursive=True)
        return self._pytest('-m', 'gpu', *(path for path in files if 'mark.gpu' in open(path, encoding='utf-8').read()))

    def against_cpu(self, *precisions: str) -> Result:
        """Two cycles of every method, on the same weights, images and random numbers."""
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        figures, wrong = {}, []
        for path in sorted(glob.glob(osp.join(CONFIGS, '*mae/*vit-nano-p4*.py')))[:: 2 if self.cpu else 1]:
            cfg, method = shrink(load_config(path)), osp.basename(path).partition('_')[0]
            if not is_multi_level(cfg):
                cfg.train_cfg.setdefault('dataloaders', {})
                levels = dict(pretrain=cfg.optim_wrapper)
                cfg.optim_wrapper = dict(constructor='mmmlo.MultiLevelOptimWrapperConstructor', levels=levels)
            torch.manual_seed(0)
            model = MODELS.build(cfg.model)
            model.init_weights()
            wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
            take = draw_batches(cfg, wrapper.levels, model, 0)
            batches = [take(wrapper.cadence.due(i)) for i in range(2 * wrapper.cadence.iterations)]
            right = self._trajectory(cfg, model.state_dict(), batches, 'cpu', torch.float64, 'fp64')
            for precision in precisions:
                found = self._trajectory(cfg, model.state_dict(), batches, self.device, torch.float32, precision)
                largest = max(abs(found[name] - value) / max(abs(value), 1e-3) for name, value in right.items())
                figures[f'{method} {precision}'] = f'{largest:.1e}'
                if not largest <= TOLERANCES[precision]:
                    wrong.append(f'{method} in {precision} differs by {largest:.1e}')
        return not wrong, '; '.join(wrong), figures

    def _trajectory(self, cfg: Any, state: dict, batches: list, device: str, dtype: torch.dtype, precision: str) -> dict:
        cfg = cfg.copy()
        if precision == 'bf16':
            enable_amp(cfg)
        for level in cfg.optim_wrapper.levels.values() if precision == 'fp16' else ():
            level.update(type='AmpOptimWrapper', dtype='float16', loss_scale=512.0)  # one that does not overflow at first
        model = MODELS.build(cfg.model).to(device, dtype).train()
        model.load_state_dict(state)
        model.masker.moves = True  # the teacher's, as its hook says
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)

        def moved(value: Any) -> Any:
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                return value.to(device, dtype)
            return value.to(device) if hasattr(value, 'to') else value

        logged = {}
        for i, batch in enumerate(batches):
            torch.manual_seed(i)
            with SameDraws():
                values = wrapper.update_levels(model, tree_map(moved, batch))
            kept = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
            logged |= {f'{k} {i}': v.item() for k, v in kept.items() if 'cosine' not in k and 'accuracy' not in k}
        return logged

    def hypergradient(self, *dtypes: str) -> Result:
        """That of MLO-MAE against a dense reference."""
        found = {dtype: check(load_config(MLO_MAE), MLO_MAE, None, dtype, 0) for dtype in dtypes}
        rows = {f'{dtype} {"+".join(row["paths"])}': row for dtype, each in found.items() for row in each['rows']}
        figures = {name: f'{row.get("cosine") or 0:.6f}' for name, row in rows.items()}
        return all(row['passed'] for row in rows.values()), 'a cosine to the reference is below 0.99', figures

    def _train(self, name: str, *options: str, processes: int = 0, port: int = 29511) -> subprocess.Popen:
        cfg = shrink(load_config(MLO_MAE), cycles=20 if self.cpu else 200)
        cfg.update(val_cfg=None, val_dataloader=None, val_evaluator=None)
        cfg.default_hooks.checkpoint.update(by_epoch=False, interval=10)
        cfg.dump(osp.join(self.work, 'short.py'))
        command = [sys.executable, osp.join(TOOLS, 'train.py'), 'short.py']
        if processes:
            command = ['bash', osp.join(TOOLS, 'dist_train.sh'), 'short.py', str(processes)]
        path = osp.dirname(sys.executable) + os.pathsep + os.environ['PATH']
        environment = dict(os.environ, PATH=path, PORT=str(port), CUBLAS_WORKSPACE_CONFIG=':4096:8')
        command += ['--work-dir', name, '--resume', '--cfg-options', *options]
        return subprocess.Popen(command, cwd=self.work, env=environment)

    def _finish(self, process: subprocess.Popen) -> None:
        if process.wait():
            raise RuntimeError(f'a program ended with {process.returncode}; the log has more')

    def _distance(self, *names: str) -> float:
        """The largest relative difference of two runs' last checkpoints, weights and optimizers."""
        contents = []
        for name in names:
            content = torch.load(named_checkpoint(osp.join(self.work, name)), map_location='cpu', weights_only=False)
            leaves = tree_leaves((content['state_dict'], content['optimizer']))
            contents.append([x.double() for x in leaves if isinstance(x, torch.Tensor) and x.is_floating_point()])
        return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)) for a, b in zip(*contents) if a.numel())

    def resume(self, kind: str) -> Result:
        """A run that is killed and resumed against one that is not."""
        exact = kind == 'deterministic'
        option, names = f'randomness.deterministic={exact}', [f'{kind[:2]}_{each}' for each in ('whole', 'killed')]
        self._finish(self._train(names[0], option))
        process = self._train(names[1], option)
        while process.poll() is None and not osp.exists(osp.join(self.work, names[1], 'last_checkpoint')):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            return False, 'the run ended before it was killed', {}
        self._finish(self._train(names[1], option))
        distance = self._distance(*names)
        return distance == 0 or not exact, f'differs by {distance:.1e}', dict(distance=distance)

    def processes(self, count: str) -> Result:
        """NCCL against gloo; on a CPU gloo alone runs, which is compared with nothing."""
        number = 1 if count == 'one' else 2 if self.cpu else torch.cuda.device_count()
        if count == 'all' and number < 2:
            raise Impossible('there is one GPU')
        names = [f'{backend}_{number}' for backend in (('gloo',) if self.cpu else ('gloo', 'nccl'))]
        for i, name in enumerate(names):
            options = (f'env_cfg.dist_cfg.backend={name[:4]}', 'randomness.deterministic=True')
            self._finish(self._train(name, *options, processes=number, port=29511 + 2 * number + i))
        distance = self._distance(names[0], names[-1])
        close = distance <= (0 if number == 1 else 1e-2)
        return close, f'weights differ by {distance:.1e}', dict(processes=number, distance=distance)

    def speed(self, method: str, *modes: str) -> Result:
        """Time, memory, operations and host waits of two iterations."""
        shape, dtype = (TINY, torch.float32) if self.cpu else (BASE, torch.bfloat16)
        prepare(argparse.Namespace(device=self.device, threads=None))
        figures: dict[str, Any] = {}
        training: Any
        for mode in modes:
            training = cycle = None  # the last one's memory is free for the next
            torch.compiler.reset()
            try:
                cfg = mmpretrain_config(shape) if method == 'mmpretrain' else config(method, shape)
                training = Training(cfg, shape.batch_size, self.device, amp=not self.cpu)
                cycle = partial(training.cycle, 2)
                if mode == 'compiled':
                    compile_blocks(training.model, **(dict(backend='aot_eager') if self.cpu else {}))
                elif mode == 'graphs':
                    cycle = self._graph(training)
                figures |= {f'{mode} {name}': value for name, value in self._timed(cycle, 2 * shape.batch_size).items()}
                if mode == 'eager':
                    rows = profile_cycle(training, self.device).values()
                    count = sum(row['operations'] for row in rows) * 2 / training.iterations
                    share = 1000 * count / figures['eager ms'] / peak_rate(self.device, dtype)
                    figures |= {'TFLOP': round(count / 1e12, 4), 'of the peak': f'{share:.1%}'}
            except Exception as error:
                traceback.print_exc()
                figures[mode] = f'{type(error).__name__}: {error}'[:300]
        failed = [f'{mode}: {figures[mode]}' for mode in modes if mode in figures]
        return not failed, '; '.join(failed), figures

    def _timed(self, cycle: Callable[[], Any], images: int) -> dict[str, Any]:
        first = time_call(cycle, self.device)
        seconds = [time_call(cycle, self.device) for _ in range(4 if self.cpu else 15)][1 if self.cpu else 3 :]
        least, median, most = (1000 * value for value in (min(seconds), statistics.median(seconds), max(seconds)))
        figures: dict[str, Any] = {'ms': round(median, 2), 'least-most': f'{least:.2f}-{most:.2f}'}
        figures |= {'images/s': round(1000 * images / median), 'first s': round(first, 1)}
        if not self.cpu:
            torch.cuda.reset_peak_memory_stats()
            with warnings.catch_warnings(record=True) as waits:
                warnings.simplefilter('always')
                torch.cuda.set_sync_debug_mode('warn')
                cycle()
                torch.cuda.set_sync_debug_mode('default')
            figures['peak MiB'] = round(torch.cuda.max_memory_allocated() / 2**20)
            figures['host waits'] = sum('synchroniz' in str(wait.message) for wait in waits)
        return figures

    def _graph(self, training: Training) -> Callable[[], None]:
        """Replays two captured steps of MAE: loss, gradients and optimizer."""
        parameters = [p for p in training.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True, capturable=True)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast('cuda', torch.bfloat16, cache_enabled=False):
                loss = training.model.loss(**training.batches['pretrain'])['loss']
            loss.backward()
            optimizer.step()

        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            step()
            step()
        return graph.replay

    def released(self) -> Result:
        """Beside the released codes."""
        sizes = [f'--{k.replace("_", "-")}={v}' for k, v in BASE._asdict().items() if k != 'batch_size']
        folders = [f'--{name.lower()}={osp.join(self.args.released, name)}' for name in ('MLO-MAE', 'cl-mae', 'betty')]
        found = self._benchmark('compare_released', *folders, *sizes, '--cycles', 3, '--batch-sizes', 64)
        figures = {row['name']: f'{row["ratio"]:.2f}' for timed in found['timed'] for row in timed['rows']}
        return found['agreed'], 'losses differ', figures

    def _benchmark(self, name: str, *options: Any, meanwhile: Callable[[], Any] = lambda: time.sleep(1)) -> dict:
        """The figures of a benchmark; what goes on meanwhile is called again and again."""
        command = [sys.executable, osp.join(HERE, f'{name}.py'), *map(str, options), '--json', 'figures.json']
        process = subprocess.Popen(command, cwd=self.work)
        while process.poll() is None:
            meanwhile()
        self._finish(process)
        with open(osp.join(self.work, 'figures.json'), encoding='utf-8') as file:
            return json.load(file)

    def loaders(self) -> Result:
        """Images a second of the loaders beside a training."""
        shape, beside = TINY if self.cpu else BASE, []
        options = ['--repeats', 3, '--large', 1024, '--workers', 1, os.cpu_count()]
        if self.cpu:
            options = ['--small', 16, '--large', 16, '--batch-size', 8, '--repeats', 1, '--workers', 0]
        build = partial(build_cycle, config('MAE', shape), shape.batch_size, self.device, not self.cpu)
        worker = Worker(build, self.device, threads=1)
        worker.answer()
        alone = statistics.median(worker.get('cycle') for _ in range(5))

        def train() -> None:
            beside.append(worker.get('cycle'))
            time.sleep(self.cpu)  # two cores are not to share their time with it

        rows = self._benchmark('loader_speed', *options, meanwhile=train)['rows']
        worker.close()
        figures = {f'{row["loader"]}, {row["workers"]} workers': round(row['images_per_second']) for row in rows}
        for name, seconds in (('alone', alone), ('beside the loaders', statistics.median(beside))):
            figures[f'MAE {name}'] = round(2 * shape.batch_size / seconds)
        return True, '', figures

    def build_mmcv(self) -> Result:
        """Build mmcv's operators in the work folder, by nvcc."""
        if not subprocess.run([sys.executable, '-c', NMS]).returncode:
            return True, '', dict(built='before')
        if not self.args.mmcv or subprocess.run(['which', 'nvcc'], stdout=subprocess.DEVNULL).returncode:
            raise Impossible('there is no nvcc, or no --mmcv')
        folder = osp.join(self.work, 'mmcv')
        if not osp.isdir(folder):
            with tarfile.open(self.args.mmcv) as archive:
                archive.extractall(f'{folder}.part', filter='data')
            os.rename(glob.glob(f'{folder}.part/*')[0], folder)
        arch = '.'.join(map(str, torch.cuda.get_device_capability()))
        environment = dict(os.environ, FORCE_CUDA='1', TORCH_CUDA_ARCH_LIST=arch, CFLAGS='-g0')
        subprocess.run([sys.executable, 'setup.py', 'build_ext', '--inplace'], cwd=folder, env=environment, check=True)
        works = not subprocess.run([sys.executable, '-c', NMS]).returncode
        return works, 'built, but mmcv.ops does not work on the GPU', dict(built='now', architecture=arch)

    def operators(self) -> Result:
        """mmcv's operators against those of the CPU."""
        if not self.cpu and subprocess.run([sys.executable, '-c', NMS]).returncode:
            raise Impossible('mmcv has no operators for the GPU')
        from mmcv.ops import nms, roi_align

        torch.manual_seed(0)
        images, corners, scores = torch.randn(2, 8, 32, 32), 20 * torch.rand(16, 2), torch.rand(16)
        boxes = torch.cat([corners, corners + 1 + 10 * torch.rand(16, 2)], dim=1)
        rois, found = torch.cat([(torch.arange(16) % 2)[:, None], boxes], dim=1), []
        for device in ('cpu', self.device):
            x = images.to(device).requires_grad_()
            pooled = roi_align(x, rois.to(device), 7, 1.0, 0, 'avg', True)
            (gradient,) = torch.autograd.grad(pooled.square().sum(), x)
            found.append((pooled.detach().cpu(), gradient.cpu(), nms(boxes.to(device), scores.to(device), 0.5)[1].cpu()))
        largest = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(*found))
        return largest < 1e-4, f'differ by {largest:.1e}', dict(difference=f'{largest:.1e}')

    def detector(self) -> Result:
        """Training steps, validation and resuming of a mask R-CNN."""
        return self._pytest(osp.join(ROOT, 'tests/test_detection/test_runs.py'), '-k', 'draw and mask-rcnn')

    def study(self) -> Result:
        """MAE, MLO-MAE, CL-MAE and guided MAE with the same number of pretrain steps."""
        size, epochs, data, seeds = DIGITS, 1, 'digits', '0'
        if not self.cpu:
            size, epochs, data, seeds = FOLDER, self._epochs(), self.args.data, '012'
        paths = {name: f'{CONFIGS}/{name.lower().replace("-", "_")}/{name.lower()}_vit-{size}.py'
                 for name in ('MAE', 'MLO-MAE', 'CL-MAE', 'Guided-MAE')}  # fmt: skip
        variants = [dict(label=name, base=path) for name, path in paths.items() if osp.exists(path)]
        with open(osp.join(self.work, 'studies.json'), 'w', encoding='utf-8') as file:
            json.dump(dict(studies=dict(methods=dict(title='Methods', base=MLO_MAE, variants=variants))), file)
        options = [f'train_cfg.max_epochs={epochs}', f'train_cfg.val_interval={epochs + 1}']
        if not self.cpu:
            os.makedirs(osp.join(self.work, 'data'), exist_ok=True)
            if not osp.islink(link := osp.join(self.work, 'data/images')):
                os.symlink(data, link)
            warm = max(1, epochs // 25)
            ends = {'0.end': warm, '1.begin': warm, '1.end': epochs, '1.T_max': epochs - warm}
            options += [f'param_scheduler.{key}={value}' for key, value in ends.items()]
        command = [osp.join(TOOLS, 'analysis_tools/run_study.py'), 'methods', '--studies', 'studies.json', '--data', data]
        command += ['--seeds', *seeds, '--out', 'study', '--protocols', 'knn', *([] if self.cpu else ['linear'])]
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is the study's, which saves and ends
        done = subprocess.run([sys.executable, *command, '--cfg-options', *options], cwd=self.work)
        if done.returncode == 130:
            sys.exit(130)
        with open(osp.join(self.work, 'study/study.json'), encoding='utf-8') as file:
            jobs = json.load(file)['jobs'].values()
        figures: dict[str, Any] = dict(epochs=epochs)
        for job in jobs:
            for protocol, found in next(iter(job['results'].values()), {}).items():
                figures.setdefault(f'{job["label"]}, {protocol}', []).append(round(found['value'], 2))
        errors = [f'{job["label"]}: {job["error"][-200:]}' for job in jobs if job['error']]
        return not done.returncode, '; '.join(errors), figures

    def _epochs(self) -> int:
        """As many as the minutes allow that are left, by the time of a few cycles; kept for the next piece."""
        path = osp.join(self.work, 'epochs')
        if not osp.exists(path):
            images = len(glob.glob(osp.join(self.args.data, 'train/*/*')))
            cycles = [partial(Training(config(name, Shape(batch_size=128)), 128, self.device).cycle, 2)
                      for name in ('MAE', 'MLO-MAE', 'CL-MAE', 'CL-MAE')]  # fmt: skip
            epoch = sum(min(time_call(cycle, self.device) for _ in range(6)) for cycle in cycles) * 0.8 * images / 256
            with open(path, 'w', encoding='utf-8') as file:
                # Of a job, starting two programs and evaluating take a minute; reading images takes a fifth of the rest.
                file.write(str(max(2, int((60 * self.args.minutes - 12 * 60) / 3 / 1.2 / epoch))))
        with open(path, encoding='utf-8') as file:
            return int(file.read())


def main() -> None:
    """Run the step and write its result."""
    args = parse_args()
    name, *arguments = args.call
    try:
        passed, reason, figures = getattr(Steps(args), name)(*arguments)
        result = dict(verdict='passed' if passed else 'failed', reason='' if passed else reason, figures=figures)
    except Impossible as impossible:
        result = dict(verdict='not possible here', reason=str(impossible), figures={})
    with open(osp.join(args.work, 'result.json'), 'w', encoding='utf-8') as file:
        json.dump(result, file)


if __name__ == '__main__':
    run(main)
