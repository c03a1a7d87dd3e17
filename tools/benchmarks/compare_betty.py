#!/usr/bin/env python
"""The masker's hypergradient of MLO-MAE: our engine against Betty's ``darts``, on the same parameters and batches.

    git clone https://github.com/leopard-ai/betty
    python tools/benchmarks/compare_betty.py betty [--cycles 5] [--seed 0] [--json betty.json]

Betty's own ``Engine`` trains a tiny MLO-MAE, built from this project's modules, at its own cadence of two pretrain steps, a
finetune and a masking step, in float64. Whenever it has the masker's gradient, that gradient is compared with ours at the
parameters and on the batches that Betty had just then: for each of the two paths, and for their sum. Two wirings:

- ``same problem``: what Betty differentiates is what we differentiate. The masker's input and the choice of patches come
  with the batch, precomputed, as ``fix_level`` does it in our engine; GELU in the masker, no dropout, ``darts_alpha`` 1e-3.
  The exit status is 1 unless every cosine is over 0.999.
- ``released wiring``: as in the released MLO-MAE. The masker's input hangs on the encoder and is computed in every pass, the
  choice of patches too, ReLU in the masker, dropout 0.1 in the head drawn in every pass, ``darts_alpha`` 0.01. Compared with
  the exact hypergradient of our wiring without dropout, and reported only. What parts the two: a dropout mask in the
  validation loss; another one on either side of a finite difference, and patches whose choice flips between the sides, both
  of them jumps that get divided by the small step; and a term that scores hanging on the encoder add to the derivative. How
  much each weighs depends on model and moment.

Images and labels are noise and the model is untrained, so nothing here says how well either of them learns.

Betty 0.2.1 is used as it is; what it needs beside a current PyTorch is done from here:

- an AdamW that takes ``decoupled_weight_decay``: Betty builds every optimizer anew from its ``defaults``, where a current
  PyTorch has that one, which its AdamW's constructor refuses;
- ``trainable_parameters`` leaves out what is frozen, the position embeddings, which Betty would differentiate by;
- the checkout goes on ``sys.path``, because Betty's packaging refuses Python 3.11 and newer;
- ``strategy='cpu'``, because the default takes a GPU where there is one; its log is silenced.
"""

import argparse
import copy
import os.path as osp
import sys
from typing import Any, NamedTuple

HERE = osp.dirname(osp.realpath(__file__))
sys.path[:0] = [HERE, osp.dirname(osp.dirname(HERE))]

from options import BETTY, Shape, check_checkout

from mmmlo.utils.process import Parser, run, start


def parse_args() -> argparse.Namespace:
    """Read the command line and refuse a folder that is no checkout of Betty."""
    parser = Parser(__doc__)
    parser.add_argument('betty', metavar='BETTY_CHECKOUT', help=f'a checkout of {BETTY}')
    parser.add_argument('--cycles', type=int, default=5, help="cycles of Betty's engine; each gives one comparison")
    parser.add_argument('--seed', type=int, default=0, help='seed of weights, images and dropout')
    parser.add_argument('--json', metavar='FILE', help='write all figures here')
    args = parser.read(cycles=1)
    check_checkout(parser, 'BETTY_CHECKOUT', args.betty, BETTY)
    return args


start(__name__, parse_args)

import torch
from measure import prepare, write_json
from mmengine.optim import build_optim_wrapper
from released import AdamW, use_betty
from torch import nn
from variants import build_model, config, our_batch

from mmmlo.models.selection import select_patches
from mmmlo.models.selfsup.base import Masking

REQUIRED_COSINE = 0.999

TINY = Shape(
    dims=48, depth=2, heads=4, decoder_dims=32, decoder_depth=1, decoder_heads=4, img_size=16, patch_size=4, batch_size=8
)
UNROLL = dict(pretrain=2, finetune=1, masking=1)
# The released ones for CIFAR-10. They decide at which parameters is compared, not how.
LEARNING_RATES = dict(pretrain=1e-4, finetune=1e-3, masking=1e-3)
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


def make_batches(level: int, count: int, seed: int) -> list[dict]:
    """Preprocessed batches of noise in float64, others for each level."""
    batches = [our_batch(TINY, 'cpu', seed + 100 * level + i) for i in range(count)]
    return [dict(batch, inputs=batch['inputs'].double()) for batch in batches]


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


def run_betty(wiring: Wiring, args: argparse.Namespace) -> list[Moment]:
    """Train a tiny MLO-MAE by Betty's engine; every masking step's moment. Both wirings start from the same weights."""
    from betty.configs import Config, EngineConfig
    from betty.engine import Engine
    from betty.problems import ImplicitProblem

    cfg = config('MLO-MAE', TINY)
    cfg.model.masker.act_cfg = dict(type=wiring.activation)
    cfg.model.downstream.dropout = wiring.dropout
    model: Any = build_model(cfg, args.seed).double()
    moments: list[Moment] = []

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

    class Recording(Level):
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

    modules = dict(
        pretrain=(Pretrain, nn.ModuleList([model.backbone, model.neck, model.head])),
        finetune=(Level, model.downstream),
        masking=(Recording, model.masker),
    )
    problems = [
        kind(
            name=name,
            module=module,
            optimizer=AdamW(module.parameters(), lr=LEARNING_RATES[name], betas=(0.9, 0.95)),
            train_data_loader=make_batches(level, args.cycles * UNROLL[name], args.seed),
            config=Config(type='darts', darts_alpha=wiring.alpha, unroll_steps=UNROLL[name], retain_graph=True),
        )
        for level, (name, (kind, module)) in enumerate(modules.items())
    ]
    pretrain, finetune, masking = problems
    Engine(
        problems=problems,
        config=EngineConfig(train_iters=args.cycles * UNROLL['pretrain'], strategy='cpu'),
        dependencies=dict(u2l={masking: [pretrain]}, l2u={pretrain: [finetune, masking], finetune: [masking]}),
    ).run()
    return moments


def flatten(tensors: list[torch.Tensor]) -> torch.Tensor:
    """One vector."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


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
            pairs = [(moment.gradients[paths], our_hypergradient(moment, estimator, paths)) for moment in moments]
            rows.append(
                dict(
                    wiring=wiring.name,
                    required=wiring.frozen,
                    estimator=estimator['type'].split('.')[-1],
                    paths=list(paths),
                    cosine=[float(betty @ ours / (betty.norm() * ours.norm())) for betty, ours in pairs],
                    relative_error=[float((betty - ours).norm() / ours.norm()) for betty, ours in pairs],
                    norm_ratio=[float(betty.norm() / ours.norm()) for betty, ours in pairs],
                )
            )
    return rows


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
            f'{row["wiring"]:17}{row["estimator"]:18}{" + ".join(row["paths"]):28}'
            f'{min(row["cosine"]):16.8f}{max(row["cosine"]):12.8f}{max(row["relative_error"]):25.1e}{ratio:>19}'
        )


def main() -> int:
    """Run Betty on both wirings, compare, print, write JSON; the exit status is 1 if gradients of one problem differ."""
    args = parse_args()
    prepare(argparse.Namespace(device='cpu', threads=1))  # a second thread gains nothing on tensors this small
    use_betty(args.betty)
    import betty

    rows = [row for wiring in WIRINGS for row in compare(wiring, run_betty(wiring, args))]
    agreed = agrees(rows)
    print_table(rows)
    print(f'Betty {betty.__version__}, torch {torch.__version__}, float64, seed {args.seed}, cycles {args.cycles}')
    print(f'same problem: every cosine over {REQUIRED_COSINE}: {"yes" if agreed else "NO"}')
    write_json(args.json, args, dict(betty=betty.__version__, agreed=agreed, rows=rows))
    return 0 if agreed else 1


if __name__ == '__main__':
    run(main)
