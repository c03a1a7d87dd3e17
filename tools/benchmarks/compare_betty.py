#!/usr/bin/env python
"""The masker's hypergradient of MLO-MAE: our engine against Betty's ``darts``, on the same parameters and batches.

    git clone https://github.com/leopard-ai/betty
    python tools/benchmarks/compare_betty.py betty [--cycles 5] [--dtype float64] [--seed 0] [--time] [--json betty.json]

Betty's own ``Engine`` trains a tiny MLO-MAE, built from this project's modules, at its own cadence of two pretrain steps, a
finetune and a masking step. Whenever it has the masker's gradient, that gradient is compared with ours at the parameters and
on the batches that Betty had just then: for each of the two paths, and for their sum. Two wirings:

- ``same problem``: what Betty differentiates is what we differentiate. The masker's input and the choice of patches come
  with the batch, precomputed, as ``fix_level`` does it in our engine; GELU in the masker, no dropout, ``darts_alpha`` 1e-3.
  The exit status is 1 unless every cosine is over 0.999.
- ``released wiring``: as in the released MLO-MAE. The masker's input hangs on the encoder and is computed in every pass, the
  choice of patches too, ReLU in the masker, dropout 0.1 in the head drawn in every pass, ``darts_alpha`` 0.01. Compared with
  the exact hypergradient of our wiring without dropout, and reported only. What parts the two: a dropout mask in the
  validation loss; another one on either side of a finite difference, and patches whose choice flips between the sides, both
  of them jumps that get divided by the small step; and a term that scores hanging on the encoder add to the derivative. How
  much each weighs depends on model and moment.

``--time`` adds the time of a cycle and the peak memory, ours over Betty's: the released wiring on Betty and MLO-MAE on our
engine with the exact hypergradient, the same modules in fp32 at a size that people train, 192 dims x 6 blocks, 64 patches,
batch 64. Each has a process of its own with the allocator settings of ``tools/env.sh``; they run in turns. AdamW has the
learning rates of our config on both sides.

Images and labels are noise and the model is untrained, so nothing here says how well either of them learns.

Betty 0.2.1 is used as it is; what it needs beside a current PyTorch is done from here:

- an AdamW that takes ``decoupled_weight_decay``: Betty builds every optimizer anew from its ``defaults``, where a current
  PyTorch has that one, which its AdamW's constructor refuses;
- ``trainable_parameters`` leaves out what is frozen, the position embeddings, which Betty would differentiate by;
- the checkout goes on ``sys.path``, because Betty's packaging refuses Python 3.11 and newer;
- ``strategy='cpu'``, or 'gpu' for ``--time`` on one, because the default takes a GPU where there is one;
- its log is silenced.
"""

import argparse
import copy
import os.path as osp
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

HERE = osp.dirname(osp.abspath(__file__))
sys.path[:0] = [HERE, osp.dirname(osp.dirname(HERE))]

from options import BETTY, Shape, check_checkout

from mmmlo.utils.process import Parser, run, start


def parse_args() -> argparse.Namespace:
    """Read the command line and refuse a folder that is no checkout of Betty."""
    parser = Parser(__doc__)
    parser.add_argument('betty', metavar='BETTY_CHECKOUT', help=f'a checkout of {BETTY}')
    parser.add_argument('--cycles', type=int, default=5, help="cycles of Betty's engine; each gives one comparison")
    parser.add_argument('--dtype', choices=('float64', 'float32'), default='float64', help='of parameters and images')
    parser.add_argument('--seed', type=int, default=0, help='seed of weights, images and dropout')
    parser.add_argument('--time', action='store_true', help='time as many cycles too, after two more, at a larger size')
    parser.add_argument('--device', help='of --time only: cpu or cuda; default: the GPU if there is one')
    parser.add_argument('--json', metavar='FILE', help='write all figures here')
    args = parser.read(cycles=1)
    check_checkout(parser, 'BETTY_CHECKOUT', args.betty, BETTY)
    return args


start(__name__, parse_args)

import torch
from measure import (
    Cycle,
    Row,
    Worker,
    as_dicts,
    describe_device,
    in_turns,
    memory_row,
    prepare,
    print_rows,
    time_row,
    write_json,
)
from mmengine.optim import build_optim_wrapper
from released import AdamW, use_betty
from torch import nn
from variants import build_cycle, build_model, config, learning_rates, mlo_mae_config, our_batch

from mmmlo.models.selection import select_patches
from mmmlo.models.selfsup.base import Masking

REQUIRED_COSINE = 0.999

TINY = Shape(
    dims=48, depth=2, heads=4, decoder_dims=32, decoder_depth=1, decoder_heads=4, img_size=16, patch_size=4, batch_size=8
)
UNROLL = dict(pretrain=2, finetune=1, masking=1)
# The released ones for CIFAR-10. They decide at which parameters is compared, not how.
LEARNING_RATES = dict(pretrain=1e-4, finetune=1e-3, masking=1e-3)
TIMED = Shape()
TIME_GOAL = MEMORY_GOAL = 0.6
PATHS = (('finetune>pretrain',), ('pretrain',), ('finetune>pretrain', 'pretrain'))


class Wiring(NamedTuple):
    """A way to write MLO-MAE for Betty, with its ``darts_alpha``, and configs of our estimators to compare it with.

    Where ``frozen``, the masker's input and the choice of patches come with the batch. Then Betty differentiates what we do,
    and the results must agree.
    """

    name: str
    frozen: bool
    activation: str
    dropout: float
    alpha: float
    estimators: tuple[dict, ...]


EXACT = dict(type='mmmlo.ForwardMode')
WIRINGS = (
    Wiring('same problem', True, 'GELU', 0.0, 1e-3, (EXACT, dict(type='mmmlo.FiniteDifference', alpha=1e-3))),
    Wiring('released wiring', False, 'ReLU', 0.1, 0.01, (EXACT,)),
)


class Moment(NamedTuple):
    """A hypergradient of Betty's: paths -> the masker's gradient along them, flat; and where it was taken.

    The model is a copy at Betty's parameters; the batches, by level, are those that Betty differentiated its losses on.
    """

    model: nn.Module
    batches: dict[str, dict]
    gradients: dict[tuple[str, ...], torch.Tensor]


def build_tiny(wiring: Wiring, dtype: torch.dtype, seed: int) -> nn.Module:
    """A tiny MLO-MAE; both wirings of a seed start from the same weights."""
    cfg = config('MLO-MAE', TINY)
    cfg.model.masker.act_cfg = dict(type=wiring.activation)
    cfg.model.downstream.dropout = wiring.dropout
    return build_model(cfg, seed).to(dtype)


def make_batches(level: int, count: int, dtype: torch.dtype, seed: int) -> list[dict]:
    """Preprocessed batches of noise, others for each level."""
    batches = [our_batch(TINY, 'cpu', seed + 100 * level + i) for i in range(count)]
    return [dict(batch, inputs=batch['inputs'].to(dtype)) for batch in batches]


@torch.no_grad()
def with_masker_input(model: nn.Module, batch: dict) -> dict:
    """The batch with the masker's input and the choice of patches at the model's present parameters."""
    tokens, grid = model.backbone.embed(batch['inputs'])
    scores = model.masker(batch['inputs'], tokens, grid)
    return dict(batch, tokens=tokens, selection=select_patches(scores, model.mask_ratio))


def pretrain_loss(model: nn.Module, batch: dict) -> torch.Tensor:
    """Equation (1) of MLO-MAE: on the batch's own masker input and choice of patches if it has them, else as released."""
    tokens = batch['tokens'] if 'tokens' in batch else model.backbone.embed(batch['inputs'])[0]
    scores = model.masker(batch['inputs'], tokens, model.backbone.grid_size)
    selection = batch['selection'] if 'selection' in batch else select_patches(scores, model.mask_ratio)
    return model.loss(batch['inputs'], masking=Masking(scores, scores, selection))['loss']


def flatten(tensors: list[torch.Tensor]) -> torch.Tensor:
    """One vector in double precision, so that the comparison adds no rounding of its own."""
    return torch.cat([tensor.detach().double().reshape(-1) for tensor in tensors])


def betty_levels(wiring: Wiring, model: nn.Module) -> dict[str, type]:
    """The model's levels as Betty's problems: name -> class."""
    from betty.problems import ImplicitProblem

    class Level(ImplicitProblem):
        def trainable_parameters(self) -> list[nn.Parameter]:
            return [parameter for parameter in self.module.parameters() if parameter.requires_grad]

        def training_step(self, batch: dict) -> torch.Tensor:
            return model.level_loss(self.name, batch)['loss']

    class Pretrain(Level):
        def get_batch(self) -> dict:
            batch = super().get_batch()
            return with_masker_input(model, batch) if wiring.frozen else batch

        def training_step(self, batch: dict) -> torch.Tensor:
            return pretrain_loss(model, batch)

    return dict(pretrain=Pretrain, finetune=Level, masking=Level)


def betty_engine(
    wiring: Wiring,
    model: nn.Module,
    kinds: Mapping[str, type],
    rates: Mapping[str, float],
    batches: dict[str, list[dict]],
    strategy: str = 'cpu',
) -> Any:
    """Betty's engine with three levels, at our cadence, whose ``run`` goes through the pretrain level's batches once.

    Args:
        wiring (Wiring): How the problem is written.
        model (nn.Module): Trained in place.
        kinds (dict[str, type]): Level -> class of its problem.
        rates (dict[str, float]): Level -> learning rate.
        batches (dict[str, list[dict]]): Level -> its batches, in the order in which Betty gets them.
        strategy (str): Betty's: 'cpu' or 'gpu'. Defaults to 'cpu'.
    """
    from betty.configs import Config, EngineConfig
    from betty.engine import Engine

    modules = dict(
        pretrain=nn.ModuleList([model.backbone, model.neck, model.head]), finetune=model.downstream, masking=model.masker
    )
    problems = {
        name: kinds[name](
            name=name,
            module=module,
            optimizer=AdamW(module.parameters(), lr=rates[name], betas=(0.9, 0.95)),
            train_data_loader=batches[name],
            config=Config(type='darts', darts_alpha=wiring.alpha, unroll_steps=UNROLL[name], retain_graph=True),
        )
        for name, module in modules.items()
    }
    pretrain, finetune, masking = problems.values()
    return Engine(
        problems=list(problems.values()),
        config=EngineConfig(train_iters=len(batches['pretrain']), strategy=strategy),
        dependencies=dict(u2l={masking: [pretrain]}, l2u={pretrain: [finetune, masking], finetune: [masking]}),
    )


def run_betty(wiring: Wiring, model: nn.Module, batches: dict[str, list[dict]]) -> list[Moment]:
    """Train the model in place by Betty's engine, and keep every masking step's moment."""
    moments: list[Moment] = []
    kinds = betty_levels(wiring, model)

    class Recording(kinds['masking']):  # type: ignore[misc]
        def training_step(self, batch: dict) -> torch.Tensor:
            # Betty comes here once a step, right before it differentiates.
            if wiring.frozen:
                # The encoder has moved since this batch was loaded, and our engine takes the masker's input from it now.
                self.pretrain.cur_batch = with_masker_input(model, self.pretrain.cur_batch)
            # Evaluation mode: the hypergradient to compare with has no dropout.
            self.model = copy.deepcopy(model).eval()
            self.batches = dict(pretrain=self.pretrain.cur_batch, finetune=self.finetune.cur_batch, masking=batch)
            self.added: list[Any] = []
            return super().training_step(batch)

        def set_grads(self, params: list[nn.Parameter], grads: list[torch.Tensor | None]) -> None:
            self.added.append(grads)
            super().set_grads(params, grads)

        def grad_callback(self) -> None:
            total = flatten([parameter.grad for parameter in self.trainable_parameters()])
            names = ['>'.join(level.name for level in path[1:-1]) for path in self.paths]
            # First the direct gradient, which is none, then the first path's; the last path's goes in by halves.
            first = flatten(self.added[1])
            gradients = {(names[0],): first, (names[1],): total - first, tuple(names): total}
            moments.append(Moment(self.model, self.batches, gradients))

    betty_engine(wiring, model, kinds | dict(masking=Recording), LEARNING_RATES, batches).run()
    return moments


def our_hypergradient(moment: Moment, estimator: dict, paths: tuple[str, ...]) -> torch.Tensor:
    """The masker's hypergradient by our engine, flat."""
    sgd = dict(optimizer=dict(type='SGD', lr=0.1))
    levels = dict(pretrain=sgd, finetune=sgd, masking=dict(sgd, paths=list(paths), hypergradient=estimator))
    wrapper = build_optim_wrapper(moment.model, dict(constructor='mmmlo.MultiLevelOptimWrapperConstructor', levels=levels))
    return flatten(wrapper.hypergradient(moment.model, 'masking', moment.batches['masking'], moment.batches)[0])


def compare(wiring: Wiring, moments: list[Moment]) -> list[dict]:
    """Figures of one wiring: a row for each estimator of ours and each path, with a value for each cycle."""
    rows = []
    for estimator in wiring.estimators:
        for paths in PATHS:
            row: dict[str, Any] = dict(
                wiring=wiring.name,
                required=wiring.frozen,
                darts_alpha=wiring.alpha,
                estimator=estimator,
                paths=list(paths),
                cosine=[],
                relative_error=[],
                norm_ratio=[],
            )
            for moment in moments:
                betty, ours = moment.gradients[paths], our_hypergradient(moment, estimator, paths)
                row['cosine'].append(float(betty @ ours / (betty.norm() * ours.norm())))
                row['relative_error'].append(float((betty - ours).norm() / ours.norm()))
                row['norm_ratio'].append(float(betty.norm() / ours.norm()))
            rows.append(row)
    return rows


def betty_cycle(checkout: str, shape: Shape, device: str) -> Cycle:
    """Build the released wiring at a larger size on Betty, whose cycle is as ours; see :mod:`measure`."""
    use_betty(checkout)
    cfg = mlo_mae_config(shape)
    model, wiring = build_model(cfg), WIRINGS[1]
    # Betty begins a list of batches anew when it is through.
    batches = {name: [our_batch(shape, device, seed)] * steps for seed, (name, steps) in enumerate(UNROLL.items())}
    strategy = 'gpu' if device.startswith('cuda') else 'cpu'
    engine = betty_engine(wiring, model, betty_levels(wiring, model), learning_rates(cfg), batches, strategy)
    return engine.run


def time_both(args: argparse.Namespace) -> list[Row]:
    """Ours over Betty's: seconds of a cycle and peak memory."""
    build = dict(
        ours=partial(build_cycle, mlo_mae_config(TIMED), TIMED, args.device),
        betty=partial(betty_cycle, args.betty, TIMED, args.device),
    )
    times = in_turns({name: partial(Worker, each, args.device) for name, each in build.items()}, args.cycles, 2)
    return [
        time_row(times, f'cycle, batch {TIMED.batch_size}', 'ours', 'betty', TIME_GOAL),
        memory_row(times, f'peak memory, batch {TIMED.batch_size}', 'ours', 'betty', MEMORY_GOAL),
    ]


def agrees(rows: list[dict]) -> bool:
    """Whether every cosine that must be is over the required one; one that is no number is not."""
    return all(cosine > REQUIRED_COSINE for row in rows if row['required'] for cosine in row['cosine'])


def print_table(rows: list[dict]) -> None:
    """Print the figures, of all cycles the extremes."""
    print(
        f'{"Betty":17}{"ours":18}{"path":28}{"cosine, lowest":>16}{"highest":>12}'
        f'{"relative error, largest":>25}{"norm ratio":>19}'
    )
    for row in rows:
        ratio = f'{min(row["norm_ratio"]):.4f}-{max(row["norm_ratio"]):.4f}'
        print(
            f'{row["wiring"]:17}{row["estimator"]["type"].split(".")[-1]:18}{" + ".join(row["paths"]):28}'
            f'{min(row["cosine"]):16.8f}{max(row["cosine"]):12.8f}{max(row["relative_error"]):25.1e}{ratio:>19}'
        )


def main() -> int:
    """Run Betty on both wirings, compare, print, write JSON; the exit status is 1 if gradients of one problem differ."""
    args = parse_args()
    args.threads = None
    prepare(args)
    device = describe_device(args.device)  # with the threads that are timed
    torch.set_num_threads(1)  # a second thread gains nothing on tensors this small
    use_betty(args.betty)
    import betty

    dtype = getattr(torch, args.dtype)
    rows = []
    for wiring in WIRINGS:
        model = build_tiny(wiring, dtype, args.seed)
        batches = {
            name: make_batches(level, args.cycles * steps, dtype, args.seed)
            for level, (name, steps) in enumerate(UNROLL.items())
        }
        rows += compare(wiring, run_betty(wiring, model, batches))
    agreed = agrees(rows)

    print_table(rows)
    print(f'Betty {betty.__version__}, torch {torch.__version__}, {args.dtype}, seed {args.seed}, cycles {args.cycles}')
    print(f'same problem: every cosine over {REQUIRED_COSINE}: {"yes" if agreed else "NO"}')
    timed = time_both(args) if args.time and agreed else []
    if timed:
        print_rows(timed, 'Betty')
        print(device)
    write_json(args.json, args, dict(betty=betty.__version__, agreed=agreed, rows=rows, timed=as_dicts(timed)))
    return 0 if agreed else 1


if __name__ == '__main__':
    run(main)
