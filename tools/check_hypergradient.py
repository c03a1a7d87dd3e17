#!/usr/bin/env python
"""Compare a config's hypergradients with a dense reference in float64, path by path.

    python tools/check_hypergradient.py configs/mlo_mae/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py

The model is shrunken, everything else is the config's own: its losses, dropout, optimizers, pipelines and batches. Where its
data is absent, synthetic images stand in. Before the comparison, weights are perturbed and trained for four cycles.

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
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any

sys.path.insert(0, osp.dirname(osp.dirname(osp.realpath(__file__))))

from mmmlo.utils.process import Parser, run, start


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('config', help='config file of a model with a level that has paths')
    parser.add_argument('--estimator', help="in place of the config's: ForwardMode, or FiniteDifference,alpha=0.01")
    text = "precision of the estimator that is checked; bfloat16 is autocast of float32. The reference's is float64"
    parser.add_argument('--dtype', choices=['float64', 'float32', 'bfloat16'], default='float64', help=text)
    parser.add_argument(
        '--json', nargs='?', const='-', metavar='FILE', help='write the results to this file or, without one, print them'
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
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from mmmlo.engine import InverseHessian, NotDifferentiableError, build_estimator
from mmmlo.engine.loops.loader_settings import with_settings_of
from mmmlo.launch.config import enable_amp, load_config
from mmmlo.launch.shrink import shrink
from mmmlo.registry import HYPERGRADIENTS, MODELS
from mmmlo.utils.config import dataset_leaves, is_multi_level, named_dataloaders
from mmmlo.utils.errors import SettingError
from mmmlo.utils.tensor_memory import TensorMemory

LOWEST_COSINE = 0.99
PERTURBATION = 0.05
CYCLES = 4
RESIDUAL = 1e-8
DTYPES = dict(float64=torch.float64, float32=torch.float32, bfloat16=torch.float32)  # of the parameters


def parse_estimator(text: str) -> dict:
    """An estimator's config from ``Name``, ``mmmlo.Name`` or ``type=Name``, and arguments after commas."""
    kind, *arguments = (part.strip() for part in text.split(','))
    kind = kind.removeprefix('type=').strip('\'"')
    cfg: dict[str, Any] = dict(type=kind if '.' in kind else f'mmmlo.{kind}')
    for name, _, value in (argument.partition('=') for argument in arguments):
        try:
            cfg[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            cfg[name] = value
    return cfg


def lowers_of(paths: Sequence[str]) -> list[str]:
    """The levels that paths pass."""
    return list(dict.fromkeys(name.strip() for path in paths for name in path.split('>')))


def find_estimators(cfg: Config, estimator: str | None) -> dict[str, dict[str, dict]]:
    """Level that moves by a hypergradient -> lower level -> config of the estimator of the edges from there."""
    levels = cfg.optim_wrapper.levels if is_multi_level(cfg) else {}
    chosen = {}
    for level, options in levels.items():
        if not options.get('paths'):
            continue
        own = parse_estimator(estimator) if estimator else options.get('hypergradient') or dict(type='mmmlo.ForwardMode')
        chosen[level] = {lower: dict(own if 'type' in own else own[lower]) for lower in lowers_of(options.paths)}
        for one in chosen[level].values():
            build_estimator(one)  # or its error
    if not chosen:
        raise SettingError(
            f'{cfg.filename} has no level with paths (optim_wrapper.levels.<level>.paths): nothing in it moves by a '
            'hypergradient, so there is none to check'
        )
    return chosen


# The reference


class _Converged(Exception):
    """Ends scipy's loop."""


@HYPERGRADIENTS.register_module(name='_ExactSolve', force=True)  # wrappers are built from configs
class _ExactSolve(InverseHessian):
    """Solves ``(H + damping) x = v`` by MINRES, which takes any symmetric H, to a residual of 1e-8 of v's norm."""

    most_steps = 1000  # of the class, as wrappers build instances
    residuals: list[float] = []  # of solves that failed

    def __init__(self, damping: float = 0.0, matrix: str = 'hessian') -> None:
        super().__init__(matrix)
        self.damping = damping

    def solve(self, hessian: Callable, vector: Sequence[torch.Tensor], average: Callable) -> list[torch.Tensor]:
        """Run MINRES; see :meth:`InverseHessian.solve`."""

        def split(values: np.ndarray) -> list[torch.Tensor]:
            parts = torch.from_numpy(values).split([v.numel() for v in vector])
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
        nonlocal best, least
        residual = float(np.linalg.norm(product(solution) - right)) / norm
        if residual < least:
            best, least = solution.copy(), residual

    def after_step(solution: np.ndarray) -> None:
        nonlocal count
        count += 1
        # MINRES compares its residual with |A| |x|, which is far larger than the right-hand side where A is nearly singular.
        # The residual that is asked for here takes a product of its own, so it is computed now and then.
        if count % 10 == 0 or count >= most_steps:
            look(solution)
            if least <= RESIDUAL:
                raise _Converged

    operator = LinearOperator((right.size, right.size), matvec=product, dtype=right.dtype)
    with suppress(_Converged):
        look(minres(operator, right, rtol=0.0, maxiter=most_steps, callback=after_step)[0])
    return best, least


def reference_cfg(cfg: dict) -> dict:
    """The dense reference with what the estimator has in place of the inverse Hessian."""
    estimator = build_estimator(cfg)
    if isinstance(estimator, InverseHessian):
        return dict(type='_ExactSolve', damping=getattr(estimator, 'damping', 0.0), matrix=estimator.matrix)
    return dict(type='mmmlo.DoubleBackward', precondition=estimator.precondition)


# The point at which hypergradients are compared


@dataclass
class Point:
    """Weights, optimizer states and batches after some training."""

    cfg: Config
    seed: int  # of what is drawn in every hypergradient
    device: str
    batches: dict[str, dict]
    model: dict[str, Any]
    wrapper: dict[str, Any]


def draw_batches(cfg: Config, levels: Sequence[str], model: Any, seed: int) -> Callable[[dict], dict]:
    """A function of what is due that gives the next batches of the config's loaders, preprocessed."""
    names = [*levels, *({'labelled'} & set(cfg.train_cfg.dataloaders))]
    own = {levels[0]: cfg.train_dataloader, **{name: cfg.train_cfg.dataloaders[name] for name in names[1:]}}

    def endless(loader: dict, seed: int) -> Iterator[dict]:
        if 'tasks' in loader:
            tasks = {name: endless(own, seed + number) for number, (name, own) in enumerate(loader['tasks'].items())}
            while True:
                yield {name: next(own) for name, own in tasks.items()}
        loader = with_settings_of(cfg.train_dataloader, loader, ['drop_last'])
        own = loader.pop('data_preprocessor', None)
        preprocessor = MODELS.build(own).to(model.backbone.pos_embed) if own else model.data_preprocessor
        built = Runner.build_dataloader(loader, seed=seed)
        if not len(built):
            raise SettingError(f'{len(built.dataset)} images of {loader["dataset"]["type"]} make no batch')
        while True:
            for batch in built:
                yield preprocessor(batch, True)

    # Levels' seeds are as far apart as in training.
    iterators = {
        level: endless(own[level], seed + 10_000 * position)
        for position, level in enumerate(names)
        if not isinstance(own[level], str)
    }

    def take(due: dict[str, int]) -> dict[str, list[dict]]:
        taken = {level: [next(iterators[level]) for _ in range(due[level])] for level in due if level in iterators}
        batches = {level: taken[level if level in taken else own[level]] for level in due}
        labelled = getattr(model, 'labelled_level', levels[0])
        if 'labelled' in iterators and labelled in batches:
            batches[labelled] = [dict(batch, labelled=next(iterators['labelled'])) for batch in batches[labelled]]
        return batches

    return take


def training_cfg(cfg: Config, chosen: dict[str, dict[str, dict]]) -> Config:
    """The config for the training before the comparison: in full precision, every level in every cycle, a batch a step.

    Its hypergradients do not come from the estimator, so that all estimators are compared at the same point; an exact solve
    in every cycle would take minutes.
    """
    cfg = copy.deepcopy(cfg)
    for level, options in cfg.optim_wrapper.levels.items():
        for name in ('type', 'loss_scale', 'dtype', 'use_fsdp', 'accumulative_counts', 'start', 'every', 'hypergradient'):
            options.pop(name, None)
        if level in chosen:
            options.hypergradient = {
                lower: dict(type='mmmlo.DoubleBackward', precondition=build_estimator(own).precondition)
                for lower, own in chosen[level].items()
            }
    return cfg


def train(cfg: Config, seed: int) -> Point:
    """Perturb the weights and train for some cycles.

    At the initialization the head is almost zero, and every layer norm does nothing after another one, so a wrong derivative
    of theirs would not show. The cycles give the optimizers their state.
    """
    set_random_seed(seed)
    # Not mmengine's choice of a device, which may have no float64.
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = MODELS.build(cfg.model).to(device=device, dtype=torch.float64).train()
    model.init_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(PERTURBATION * torch.randn_like(parameter))
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    take = draw_batches(cfg, wrapper.levels, model, seed)
    complete = 0
    while complete < CYCLES:
        batches = take(wrapper.due())
        seed += 1
        torch.manual_seed(seed)
        wrapper.update_levels(model, batches)
        complete += len(batches) == len(wrapper.levels)
    last = {level: own[-1] for level, own in batches.items()}
    return Point(cfg, seed, device, last, model.state_dict(), wrapper.state_dict())


class SameDraws(TorchFunctionMode):
    """Draws random numbers in float64 on the host and rounds them: a seed gives others in other precisions and on a GPU."""

    IN_PLACE = {getattr(torch.Tensor, name) for name in ('bernoulli_', 'exponential_', 'normal_', 'uniform_')}
    NEW = {torch.rand, torch.rand_like, torch.randn, torch.randn_like}
    DROPOUT = {F.alpha_dropout, F.dropout, F.dropout1d, F.dropout2d, F.dropout3d}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        wide = dict(dtype=torch.float64, device='cpu')
        if func in self.IN_PLACE:
            return args[0].copy_(func(torch.empty_like(args[0], **wide), *args[1:], **kwargs))
        if func in self.NEW:
            like = args[0] if args and isinstance(args[0], torch.Tensor) else torch.empty(0)
            drawn = func(*args, **{**kwargs, **wide})
            return drawn.to(kwargs.get('device') or like.device, kwargs.get('dtype') or like.dtype)
        if func in self.DROPOUT:
            return args[0] * func(torch.ones_like(args[0], **wide), *args[1:], **kwargs).to(args[0])
        return func(*args, **kwargs)


class _KeepDouble(TorchFunctionMode):
    """Leaves float64 as it is where code asks for float32, as mmdet's heads do for fear of overflow in float16."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.float and args[0].dtype == torch.float64:
            return args[0]
        return func(*args, **(kwargs or {}))


# Measurements


def measure(
    point: Point, level: str, paths: list[str], estimators: dict[str, dict], dtype: str, draws: AbstractContextManager
) -> tuple[torch.Tensor, dict[str, float]]:
    """The hypergradient of an estimator, or of its reference, as one vector in float64; its milliseconds and peak MiB."""
    cfg = copy.deepcopy(point.cfg)
    if dtype == 'bfloat16':
        enable_amp(cfg)
    options = cfg.optim_wrapper.levels[level]
    options.pop('hypergradient')
    options.update(paths=paths, hypergradient=estimators)

    def cast(value: Any) -> Any:
        floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.to(DTYPES[dtype]) if floating else value

    model = MODELS.build(cfg.model).to(device=point.device, dtype=DTYPES[dtype]).train()
    model.load_state_dict(point.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    state = copy.deepcopy(point.wrapper)  # an optimizer keeps the tensors that it is given
    wrapper.load_state_dict(dict(state, last_gradients=tree_map(cast, state['last_gradients'])))
    batches = tree_map(cast, point.batches)

    def hypergradient() -> torch.Tensor:
        torch.manual_seed(point.seed)
        gradients = wrapper.hypergradient(model, level, batches[level], batches).gradients
        return torch.cat([gradient.double().reshape(-1) for gradient in gradients])

    costs = dict(peak_mib=_peak_mib(hypergradient, point.device))  # the first time, which may be slower
    _ExactSolve.residuals.clear()
    begin = time.perf_counter()
    with draws, _KeepDouble():
        vector = hypergradient()
    if point.device == 'cuda':
        torch.cuda.synchronize()
    return vector, costs | dict(ms=1000 * (time.perf_counter() - begin))


def _peak_mib(function: Callable[[], Any], device: str) -> float:
    """Peak memory beyond model and batches, in MiB: by CUDA's statistics, elsewhere of tensors."""
    # An exact solve takes as much in two steps as in all.
    most_steps, _ExactSolve.most_steps = _ExactSolve.most_steps, 2
    try:
        if device == 'cuda':
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            function()
            return (torch.cuda.max_memory_allocated() - before) / 2**20
        with TensorMemory() as memory:
            function()
        return memory.peak / 2**20
    finally:
        _ExactSolve.most_steps = most_steps


def compare(point: Point, level: str, paths: list[str], chosen: dict[str, dict], dtype: str) -> dict:
    """One row: the estimator against its reference along these paths."""
    row: dict[str, Any] = dict(level=level, paths=paths, error=None, passed=False)
    estimators = {lower: chosen[lower] for lower in lowers_of(paths)}
    references = {lower: reference_cfg(cfg) for lower, cfg in estimators.items()}
    draws = nullcontext() if dtype == 'float64' else SameDraws()
    try:
        actual, costs = measure(point, level, paths, estimators, dtype, draws)
        expected, reference_costs = measure(point, level, paths, references, 'float64', draws)
    except NotDifferentiableError as error:
        return dict(row, error=str(error))
    row |= costs | {f'reference_{name}': cost for name, cost in reference_costs.items()}
    if _ExactSolve.residuals:
        row['error'] = (
            f'no reference: MINRES reached a residual of {max(_ExactSolve.residuals):.1e} within {_ExactSolve.most_steps} '
            f"steps, {RESIDUAL:.0e} is needed: the Hessian is too close to singular. ConjugateGradient's damping helps"
        )
        return row
    norm, reference_norm = (vector.norm().item() for vector in (actual, expected))
    row |= dict(
        cosine=_ratio((actual @ expected).item(), norm * reference_norm),
        relative_error=_ratio((actual - expected).norm().item(), reference_norm),
        norm_ratio=_ratio(norm, reference_norm),
    )
    return dict(row, passed=row['cosine'] >= LOWEST_COSINE)  # False for what is not a number


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


# The report


def describe_data(cfg: Config) -> str:
    """Where the levels' batches come from, before shrinking."""
    loaders = [loader for key, loader in named_dataloaders(cfg) if key.startswith('train')]
    leaves = [leaf for loader in loaders for _, leaf in dataset_leaves(loader['dataset'], '')]
    roots = {leaf['data_root'] for leaf in leaves if leaf.get('data_root')}
    absent = sorted(root for root in roots if not osp.isdir(osp.expanduser(root)))
    if absent:
        return f'synthetic images, because {" and ".join(absent)} {"is" if len(absent) == 1 else "are"} absent'
    return ' and '.join(sorted({leaf['type'] for leaf in leaves})) + ", the config's own"


def check(cfg: Config, path: str, estimator: str | None, dtype: str, seed: int) -> dict:
    """Compare every level with paths, path by path and all together."""
    chosen = find_estimators(cfg, estimator)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    point = train(training_cfg(shrink(cfg), chosen), seed)
    rows = []
    for level, estimators in chosen.items():
        paths = list(cfg.optim_wrapper.levels[level].paths)
        for some in [*([path] for path in paths), *([paths] if len(paths) > 1 else [])]:
            rows.append(compare(point, level, some, estimators, dtype))
    return dict(
        config=path,
        estimators=chosen,
        references={level: {lower: reference_cfg(one) for lower, one in own.items()} for level, own in chosen.items()},
        dtype=dtype,
        seed=seed,
        data=describe_data(cfg),
        torch=torch.__version__,
        device=f'CPU, {torch.get_num_threads()} threads' if point.device == 'cpu' else torch.cuda.get_device_name(),
        rows=rows,
        passed={level: all(row['passed'] for row in rows if row['level'] == level) for level in chosen},
    )


# Title, key of a row, format; the reference's time and memory stand beside the estimator's.
COLUMNS = (
    ('cosine', 'cosine', '.6f'), ('rel. error', 'relative_error', '.1e'), ('norm ratio', 'norm_ratio', '.6f'),
    ('ms', 'ms', '.1f'), ('reference', 'reference_ms', '.1f'),
    ('peak MiB', 'peak_mib', '.2f'), ('reference', 'reference_peak_mib', '.2f')
)


def render(report: dict) -> str:
    """The report as a table, and a verdict for each level."""
    lines = [f'{report["config"]}, seed {report["seed"]}, torch {report["torch"]}, {report["device"]}']
    lines += [f'precision: {report["dtype"]}, the reference in float64', f'data: {report["data"]}']
    for level, own in report['estimators'].items():
        for lower, one in own.items():
            lines.append(f'{level}, edges from {lower}: {one} against {report["references"][level][lower]}')
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
        for row in report['rows']:  # JSON has no numbers that are not finite
            row.update({key: None for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)})
        with nullcontext(sys.stdout) if args.json == '-' else open(args.json, 'w') as file:
            print(json.dumps(report, indent=2), file=file)
    return 0 if all(report['passed'].values()) else 1


if __name__ == '__main__':
    run(main, status=2)
