#!/usr/bin/env python
"""Compare a config's hypergradients with a dense reference in float64, path by path.

    python tools/check_hypergradient.py configs/mlo_mae/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py

The model is shrunken, everything else is the config's own: its losses, dropout, optimizers, pipelines and batches. Where its
data is absent, synthetic images stand in. Before the comparison, weights are perturbed and trained for a few cycles.

The reference has what the estimator has in place of the inverse Hessian: the identity or the preconditioner, by double
backward; or the inverse itself, by MINRES, for Neumann and ConjugateGradient. It crosses the same edges with the same masks
and dropout, so this checks estimators and precision, not what the engine does around them.

Exit status: 0 if every cosine is at least 0.99; 1 if one is not, or the reference was not found; 2 for wrong usage.
"""

import argparse
import ast
import copy
import json
import math
import os.path as osp
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from typing import Any

sys.path.insert(0, osp.dirname(osp.dirname(osp.abspath(__file__))))

from mmmlo.utils.process import Parser, run, start


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('config', help='config file of a model with a level that has paths')
    parser.add_argument(
        '--estimator',
        help="check this one in place of the config's: a name, such as ForwardMode, or with arguments, such as "
        'FiniteDifference,alpha=0.01',
    )
    parser.add_argument(
        '--dtype',
        choices=['float64', 'float32', 'bfloat16'],
        default='float64',
        help="precision of the estimator that is checked; bfloat16 is autocast of float32. The reference's is float64",
    )
    parser.add_argument(
        '--json',
        nargs='?',
        const='-',
        metavar='FILE',
        help='write the results as JSON to this file or, without one, to the standard output',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of weights, batches and dropout')
    parser.add_cfg_options()
    return parser.read(argv)


start(__name__, parse_args)

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from scipy.sparse.linalg import LinearOperator, minres
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from mmmlo.engine import InverseHessian, NotDifferentiableError, build_estimator
from mmmlo.engine.loops.loader_settings import with_settings_of
from mmmlo.launch.config import enable_amp, load_config
from mmmlo.launch.shrink import shrink
from mmmlo.registry import HYPERGRADIENTS, MODELS
from mmmlo.utils.config import is_multi_level
from mmmlo.utils.errors import SettingError
from mmmlo.utils.tensor_memory import TensorMemory

LOWEST_COSINE = 0.99
PERTURBATION = 0.05
CYCLES = 4
RESIDUAL = 1e-8
MOST_STEPS = 1000
DTYPES = dict(float64=torch.float64, float32=torch.float32, bfloat16=torch.float32)  # of the parameters


class _Converged(Exception):
    """Ends scipy's loop."""


def parse_estimator(text: str) -> dict:
    """An estimator's config from ``Name``, ``mmmlo.Name`` or ``type=Name``, and arguments after commas."""
    kind, *arguments = (part.strip() for part in text.split(','))
    kind = kind.removeprefix('type=').strip('\'"')
    cfg: dict[str, Any] = dict(type=kind if '.' in kind else f'mmmlo.{kind}')
    for argument in arguments:
        name, _, value = argument.partition('=')
        try:
            cfg[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            cfg[name] = value
    return cfg


def by_lower_level(hypergradient: dict, lowers: Sequence[str]) -> dict[str, dict]:
    """Lower level -> its estimator's config, from either form of ``hypergradient``."""
    if 'type' in hypergradient:
        return {lower: hypergradient for lower in lowers}
    return {lower: hypergradient[lower] for lower in lowers if lower in hypergradient}


def map_estimators(function: Callable[[dict], Any], hypergradient: dict) -> Any:
    """Apply a function to the config of the estimator, or of each."""
    if 'type' in hypergradient:
        return function(hypergradient)
    return {lower: function(cfg) for lower, cfg in hypergradient.items()}


def levels_with_paths(cfg: Config, estimator: str | None) -> dict[str, dict]:
    """Level -> config of its estimator, or lower level -> that; for the levels that move by a hypergradient."""
    levels = cfg.optim_wrapper.levels if is_multi_level(cfg) else {}
    found = {level: options for level, options in levels.items() if options.get('paths')}
    if not found:
        raise SettingError(
            f'{cfg.filename} has no level with paths (optim_wrapper.levels.<level>.paths): nothing in it moves by a '
            'hypergradient, so there is none to check'
        )
    chosen = {}
    for level, options in found.items():
        configured = options.get('hypergradient') or dict(type='mmmlo.ForwardMode')
        chosen[level] = parse_estimator(estimator) if estimator else configured
        map_estimators(build_estimator, chosen[level])  # or its error
    return chosen


# The reference


@HYPERGRADIENTS.register_module(name='_ExactSolve', force=True)  # wrappers are built from configs
class _ExactSolve(InverseHessian):
    """Solves ``(H + damping) x = v`` by MINRES, which takes any symmetric H, to a residual of 1e-8 of v's norm.

    The steps after which it gives up, and the residuals of solves that failed, are of the class: wrappers build instances.
    """

    most_steps = MOST_STEPS
    residuals: list[float] = []

    def __init__(self, damping: float = 0.0) -> None:
        super().__init__()
        self.damping = damping

    def solve(self, hessian: Callable, vector: Sequence[torch.Tensor], average: Callable = list) -> list[torch.Tensor]:
        """Run MINRES; see :meth:`InverseHessian.solve`."""
        sizes = [v.numel() for v in vector]

        def split(values: np.ndarray) -> list[torch.Tensor]:
            parts = torch.from_numpy(values).split(sizes)
            return [part.view_as(v).to(v) for part, v in zip(parts, vector)]

        def join(tensors: Sequence[torch.Tensor]) -> np.ndarray:
            return torch.cat([t.detach().reshape(-1) for t in tensors]).cpu().numpy()

        def product(values: np.ndarray) -> np.ndarray:
            return join(hessian(split(values))) + self.damping * values

        solution, residual = _minres(product, join(vector), self.most_steps)
        if residual > RESIDUAL:
            self.residuals.append(residual)
        return split(solution)


def _minres(product: Callable[[np.ndarray], np.ndarray], right: np.ndarray, most_steps: int) -> tuple[np.ndarray, float]:
    """The solution of a symmetric system and its relative residual."""
    norm = float(np.linalg.norm(right)) or 1.0
    best, least, count = np.zeros_like(right), 1.0, 0

    def look(solution: np.ndarray) -> None:
        nonlocal best, least, count
        count += 1
        # MINRES compares its residual with |A| |x|, which is far larger than the right-hand side where A is nearly singular.
        # The residual that is asked for here takes a product of its own, so it is computed now and then.
        if count % 10 == 0 or count >= most_steps:
            residual = float(np.linalg.norm(product(solution) - right)) / norm
            if residual < least:
                best, least = solution.copy(), residual
            if residual <= RESIDUAL:
                raise _Converged

    operator = LinearOperator((right.size, right.size), matvec=product, dtype=right.dtype)
    try:
        solution, _ = minres(operator, right, rtol=0.0, maxiter=most_steps, callback=look)
    except _Converged:
        return best, least
    # It also stops by itself, where it can get no further in float64.
    residual = float(np.linalg.norm(product(solution) - right)) / norm
    return (solution, residual) if residual <= least else (best, least)


def reference_cfg(cfg: dict) -> dict:
    """The dense reference with what the estimator has in place of the inverse Hessian."""
    estimator = build_estimator(cfg)
    if isinstance(estimator, InverseHessian):
        return dict(type='_ExactSolve', damping=getattr(estimator, 'damping', 0.0))
    return dict(type='mmmlo.DoubleBackward', precondition=estimator.precondition)


# The point at which hypergradients are compared


@dataclass
class Point:
    """Weights, optimizer states and batches after some training, and those before its last iteration."""

    cfg: Config
    seed: int  # of what is drawn in the last iteration, and in every hypergradient
    device: str
    batches: dict[str, list[dict]]
    before: dict[str, dict]
    after: dict[str, dict]


class LevelBatches:
    """The batches of all levels from the config's loaders, preprocessed."""

    def __init__(self, cfg: Config, levels: Sequence[str], preprocessor: nn.Module, seed: int) -> None:
        own = {level: cfg.train_cfg.dataloaders[level] for level in levels[1:]}
        self.shared = {level: loader for level, loader in own.items() if isinstance(loader, str)}
        self.iterators = {}
        for position, level in enumerate(levels):
            if level not in self.shared:
                loader = with_settings_of(cfg.train_dataloader, own.get(level, cfg.train_dataloader), ['drop_last'])
                # Levels' seeds are as far apart as in training.
                self.iterators[level] = self._endless(loader, seed + 10_000 * position)
        self.preprocessor = preprocessor

    def _endless(self, cfg: dict, seed: int) -> Iterator[dict]:
        loader = Runner.build_dataloader(cfg, seed=seed)
        while True:
            for batch in loader:
                yield self.preprocessor(batch, True)

    def take(self, due: dict[str, int]) -> dict[str, list[dict]]:
        """The next batches of the levels that are due."""
        own = [level for level in due if level not in self.shared]
        taken = {level: [next(self.iterators[level]) for _ in range(due[level])] for level in own}
        return {level: taken[self.shared.get(level, level)] for level in due}


def training_cfg(cfg: Config, estimators: dict[str, dict]) -> Config:
    """The config for the training before the comparison: in full precision, every level in every cycle, a batch a step.

    Its hypergradients do not come from the estimator, so that all estimators are compared at the same point.
    """
    cfg = copy.deepcopy(cfg)
    for level, options in cfg.optim_wrapper.levels.items():
        for name in ('type', 'loss_scale', 'dtype', 'use_fsdp', 'accumulative_counts', 'start', 'every'):
            options.pop(name, None)
        if level in estimators:
            lowers = {name.strip() for path in options.paths for name in path.split('>')}
            used = by_lower_level(estimators[level], sorted(lowers))
            options.pop('hypergradient', None)
            # An exact solve in every cycle would take minutes.
            options.hypergradient = {
                lower: dict(type='mmmlo.DoubleBackward', precondition=build_estimator(own).precondition)
                for lower, own in used.items()
            }
    return cfg


def build_model(cfg: Config, dtype: torch.dtype, device: str) -> nn.Module:
    """The model in train mode."""
    return MODELS.build(cfg.model).to(device=device, dtype=dtype).train()


def train(cfg: Config, seed: int) -> Point:
    """Perturb the weights and train for some cycles.

    At the initialization the head is almost zero, and every layer norm does nothing after another one, so a wrong derivative
    of theirs would not show. The cycles give the optimizers their state.
    """
    set_random_seed(seed)
    # Not mmengine's choice of a device, which may have no float64.
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = build_model(cfg, torch.float64, device)
    model.init_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(PERTURBATION * torch.randn_like(parameter))
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    loader = LevelBatches(cfg, wrapper.levels, model.data_preprocessor, seed)
    complete = 0
    while complete < CYCLES:
        batches = loader.take(wrapper.due())
        before = _state(model, wrapper)
        seed += 1
        torch.manual_seed(seed)
        wrapper.update_levels(model, batches)
        complete += len(batches) == len(wrapper.levels)
    return Point(cfg, seed, device, batches, before, _state(model, wrapper))


def _state(model: nn.Module, wrapper: Any) -> dict[str, dict]:
    return copy.deepcopy(dict(model=model.state_dict(), wrapper=wrapper.state_dict()))


class _SameDraws(TorchFunctionMode):
    """Draws random numbers in float64 and rounds them: a seed gives other numbers, and other masks, in other precisions."""

    IN_PLACE = {getattr(torch.Tensor, name) for name in ('bernoulli_', 'exponential_', 'normal_', 'uniform_')}
    NEW = {torch.rand, torch.rand_like, torch.randn, torch.randn_like}
    DROPOUT = {F.alpha_dropout, F.dropout, F.dropout1d, F.dropout2d, F.dropout3d}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in self.IN_PLACE:
            return args[0].copy_(func(torch.empty_like(args[0], dtype=torch.float64), *args[1:], **kwargs))
        if func in self.NEW:
            like = args[0].dtype if args and isinstance(args[0], torch.Tensor) else torch.get_default_dtype()
            return func(*args, **{**kwargs, 'dtype': torch.float64}).to(kwargs.get('dtype') or like)
        if func in self.DROPOUT:
            return args[0] * func(torch.ones_like(args[0], dtype=torch.float64), *args[1:], **kwargs).to(args[0].dtype)
        return func(*args, **kwargs)


# Measurements


class Side:
    """An estimator, or its reference, at the point of comparison, with a model and a wrapper of its own."""

    def __init__(self, point: Point, level: str, paths: list[str], estimators: dict[str, dict], dtype: str) -> None:
        self.point, self.level = point, level
        cfg = copy.deepcopy(point.cfg)
        if dtype == 'bfloat16':
            enable_amp(cfg)
        options = cfg.optim_wrapper.levels[level]
        options.pop('hypergradient')
        options.update(paths=paths, hypergradient=estimators)
        self.model = build_model(cfg, DTYPES[dtype], point.device)
        self.wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)

        def cast(value: Any) -> Any:
            floating = isinstance(value, torch.Tensor) and value.is_floating_point()
            return value.to(DTYPES[dtype]) if floating else value

        self.batches = tree_map(cast, point.batches)
        if any(cfg.get('precondition') == 'adam' for cfg in estimators.values()):
            # It reads the gradients of the levels' last steps, which no state holds.
            self._load(point.before)
            torch.manual_seed(point.seed)
            self.wrapper.update_levels(self.model, self.batches)
        self._load(point.after)

    def _load(self, state: dict[str, dict]) -> None:
        self.model.load_state_dict(state['model'])
        # An optimizer keeps the tensors that it is given, and writes to them when it steps.
        self.wrapper.load_state_dict(copy.deepcopy(state['wrapper']))

    def hypergradient(self) -> torch.Tensor:
        """The hypergradient as one vector in float64, with the dropout of the run's seed."""
        torch.manual_seed(self.point.seed)
        last = {level: batches[-1] for level, batches in self.batches.items()}
        gradients = self.wrapper.hypergradient(self.model, self.level, last[self.level], last).gradients
        return torch.cat([gradient.double().reshape(-1) for gradient in gradients])

    def timed_hypergradient(self) -> tuple[torch.Tensor, float]:
        """:meth:`hypergradient` and its milliseconds."""
        self._synchronize()
        begin = time.perf_counter()
        gradient = self.hypergradient()
        self._synchronize()
        return gradient, 1000 * (time.perf_counter() - begin)

    def milliseconds(self, first: float) -> float:
        """Time of a hypergradient: the median of three after the first one, or that one if it took seconds."""
        return first if first > 3000 else statistics.median(self.timed_hypergradient()[1] for _ in range(3))

    def peak_mib(self) -> float:
        """Peak memory beyond model and batches, in MiB: by CUDA's statistics, elsewhere of tensors."""
        # An exact solve takes as much in two steps as in all.
        most_steps, _ExactSolve.most_steps = _ExactSolve.most_steps, 2
        try:
            if self.point.device.startswith('cuda'):
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                self.hypergradient()
                return (torch.cuda.max_memory_allocated() - before) / 2**20
            with TensorMemory() as memory:
                self.hypergradient()
            return memory.peak / 2**20
        finally:
            _ExactSolve.most_steps = most_steps

    def _synchronize(self) -> None:
        if self.point.device.startswith('cuda'):
            torch.cuda.synchronize()


def compare(point: Point, level: str, paths: list[str], hypergradient: dict, dtype: str) -> dict:
    """One row: the estimator against its reference along these paths."""
    row: dict[str, Any] = dict(level=level, paths=paths, error=None)
    lowers = dict.fromkeys(name.strip() for path in paths for name in path.split('>'))
    estimators = by_lower_level(hypergradient, list(lowers))
    references = {lower: reference_cfg(cfg) for lower, cfg in estimators.items()}
    _ExactSolve.residuals.clear()
    try:
        with nullcontext() if dtype == 'float64' else _SameDraws():
            sides = [Side(point, level, paths, estimators, dtype), Side(point, level, paths, references, 'float64')]
            (actual, first), (expected, reference_first) = (side.timed_hypergradient() for side in sides)
    except NotDifferentiableError as error:
        return dict(row, error=str(error), passed=False)
    if _ExactSolve.residuals:
        row['error'] = (
            f'no reference: MINRES reached a residual of {max(_ExactSolve.residuals):.1e} within {_ExactSolve.most_steps} '
            f"steps, {RESIDUAL:.0e} is needed: the Hessian is too close to singular. ConjugateGradient's damping helps"
        )
    else:
        norm, reference_norm = (vector.norm().item() for vector in (actual, expected))
        row.update(
            cosine=_ratio((actual @ expected).item(), norm * reference_norm),
            relative_error=_ratio((actual - expected).norm().item(), reference_norm),
            norm_ratio=_ratio(norm, reference_norm),
        )
    row['passed'] = row.get('cosine', math.nan) >= LOWEST_COSINE  # False for what is not a number
    for name, side, ms in zip(('', 'reference_'), sides, (first, reference_first)):
        row[f'{name}ms'] = side.milliseconds(ms)
        row[f'{name}peak_mib'] = side.peak_mib()
    return row


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


# The report


def describe_data(original: Config, levels: Sequence[str]) -> str:
    """Where the batches come from, before shrinking."""
    loaders = [original.train_dataloader, *((original.train_cfg.get('dataloaders') or {}).get(level) for level in levels)]
    sources = [dataset for loader in loaders if isinstance(loader, dict) for dataset in _sources(loader['dataset'])]
    roots = {dataset['data_root'] for dataset in sources if dataset.get('data_root')}
    absent = sorted(root for root in roots if not osp.isdir(osp.expanduser(root)))
    if absent:
        return f'synthetic images, because {" and ".join(absent)} {"is" if len(absent) == 1 else "are"} absent'
    return ' and '.join(sorted({f'{dataset["type"]}' for dataset in sources})) + ", the config's own"


def _sources(dataset: dict) -> list[dict]:
    """The datasets inside a dataset that hold no other."""
    inner = [dataset['dataset']] if 'dataset' in dataset else dataset.get('datasets', [])
    return [source for one in inner for source in _sources(one)] if inner else [dataset]


def check(cfg: Config, path: str, estimator: str | None, dtype: str, seed: int) -> dict:
    """Compare every level with paths, path by path and all together."""
    chosen = levels_with_paths(cfg, estimator)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    point = train(training_cfg(shrink(cfg), chosen), seed)
    rows = []
    for level, hypergradient in chosen.items():
        paths = list(cfg.optim_wrapper.levels[level].paths)
        for some in [*([path] for path in paths), *([paths] if len(paths) > 1 else [])]:
            rows.append(compare(point, level, some, hypergradient, dtype))
    cuda = point.device.startswith('cuda')
    return dict(
        config=path,
        estimators=chosen,
        references={level: map_estimators(reference_cfg, own) for level, own in chosen.items()},
        dtype=dtype,
        seed=seed,
        data=describe_data(cfg, list(cfg.optim_wrapper.levels)),
        state=f'weights initialized, perturbed by {PERTURBATION}, trained for {CYCLES} cycles in float64, no schedules',
        torch=torch.__version__,
        device=torch.cuda.get_device_name() if cuda else f'CPU, {torch.get_num_threads()} threads',
        lowest_cosine=LOWEST_COSINE,
        rows=rows,
        passed={level: all(row['passed'] for row in rows if row['level'] == level) for level in chosen},
    )


# Title, key of a row, format; the reference's time and memory stand beside the estimator's.
COLUMNS = (
    ('cosine', 'cosine', '.6f'),
    ('rel. error', 'relative_error', '.1e'),
    ('norm ratio', 'norm_ratio', '.6f'),
    ('ms', 'ms', '.1f'),
    ('reference', 'reference_ms', '.1f'),
    ('peak MiB', 'peak_mib', '.2f'),
    ('reference', 'reference_peak_mib', '.2f'),
)


def render(report: dict) -> str:
    """The report as a table, and a verdict for each level."""
    head = dict(config=report['config'])
    for level, own in report['estimators'].items():
        described = map_estimators(_describe, own)
        head[level] = described if isinstance(described, str) else '; '.join(f'{k}: {v}' for k, v in described.items())
    head |= dict(
        precision=f'{report["dtype"]}, the reference in float64',
        data=report['data'],
        state=report['state'],
        run=f'seed {report["seed"]}, torch {report["torch"]}, {report["device"]}',
    )
    lines = [f'{name + ":":<11} {value}' for name, value in head.items()]
    width = max(len(_name(row)) for row in report['rows']) + 2
    lines += ['', f'{"level, path":{width}}' + ''.join(f'{title:>12}' for title, _, _ in COLUMNS)]
    for row in report['rows']:
        figures = ''.join(f'{row[key]:12{form}}' if key in row else ' ' * 12 for _, key, form in COLUMNS)
        lines.append(f'{_name(row):{width}}{figures}'.rstrip())
        if row['error']:
            lines.append(f'    {row["error"]}')
    lines.append('')
    for level, passed in report['passed'].items():
        rows = [row for row in report['rows'] if row['level'] == level]
        if passed:
            lines.append(f'{level}: PASSED, lowest cosine {min(row["cosine"] for row in rows):.6f}')
        else:
            failed = ', '.join(f'{_name(row)} ({row.get("cosine", math.nan):.6f})' for row in rows if not row['passed'])
            lines.append(f'{level}: FAILED, a cosine of at least {LOWEST_COSINE} to the reference is needed: {failed}')
    return '\n'.join(lines)


def _name(row: dict) -> str:
    return f'{row["level"]}, {"+".join(row["paths"])}'


def _describe(hypergradient: dict) -> str:
    arguments = ', '.join(f'{name}={value!r}' for name, value in hypergradient.items() if name != 'type')
    reference = reference_cfg(hypergradient)
    if reference['type'] == '_ExactSolve':
        against = 'an exact solve with H' + (f' + {reference["damping"]}' if reference['damping'] else '')
    else:
        against = f'double backward, {reference["precondition"]} in place of the inverse Hessian'
    return f'{hypergradient["type"]}({arguments}) against {against}'


def write_json(report: dict, path: str) -> None:
    """Write the report; what is not a finite number becomes null, which JSON has."""
    finite = [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in report['rows']
    ]
    text = json.dumps(dict(report, rows=finite), indent=2)
    if path == '-':
        print(text)
        return
    with open(path, 'w') as file:
        file.write(text + '\n')


def main(argv: Sequence[str] | None = None) -> int:
    """Check a config, print the report and return the exit status."""
    args = parse_args(argv)
    try:
        # Log messages go to the standard error: there may be JSON on the standard output, and nothing else then.
        with redirect_stdout(sys.stderr):
            MMLogger.get_current_instance().setLevel('WARNING')  # not a line for every parameter that is initialized
            report = check(load_config(args.config, args.cfg_options), args.config, args.estimator, args.dtype, args.seed)
    except NotDifferentiableError as error:
        print(f'error: no reference: {error}', file=sys.stderr)
        return 1
    print(render(report), file=sys.stderr if args.json == '-' else sys.stdout)
    if args.json:
        write_json(report, args.json)
    return 0 if all(report['passed'].values()) else 1


if __name__ == '__main__':
    run(main, status=2)
