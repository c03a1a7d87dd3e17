#!/usr/bin/env python
"""Speed and memory beside the released MLO-MAE and CL-MAE and mmpretrain's MAE, in one run, on the same weights and images.

    git clone https://github.com/Alexiland/MLO-MAE
    git clone https://github.com/ristea/cl-mae
    git clone https://github.com/leopard-ai/betty
    python tools/benchmarks/compare_released.py --mlo-mae MLO-MAE --cl-mae cl-mae --betty betty \\
        [--batch-sizes 64 256] [--losses-only] [--device cpu] [--bf16] [--json released.json]

Without a checkout its part is left out: MLO-MAE needs the first and the third, CL-MAE the second, mmpretrain's MAE none.
On two cores it takes about ten minutes, and with ``--batch-sizes 64 --cycles 3`` under three.

First both are compared on the same weights and images of noise, in float64 and without dropout. If anything differs by more
than 1e-8 of itself, nothing is timed and the exit status is 1:

- the losses of MAE and of MLO-MAE's three levels;
- of CL-MAE, in a tiny model, the scores, ours being 1 minus the released keep weights, the choice of patches and the losses
  on the scores; for raw and for normalized pixels the pretrain phase's loss, the masking phase's reconstruction term and its
  sum with the other losses at three curriculum factors, and the gradients of loss and sum by every parameter.

Then each variant gets a process of its own, and they run in turns, a cycle each; ratios are those of a round, their median
and quartiles are printed. A cycle is two pretrain steps, a finetune and a masking step of MLO-MAE, with the exact
hypergradient for ours and Betty's ``darts`` for the released; two steps of MAE; an MAE step and a masking step of CL-MAE.
Batches lie in memory: loading, decoding and normalizing images is not timed on either side. Goals are the project's own.

- ``same settings``: both with what every tool here sets for the allocator and for threads that wait.
- ``as documented``: ours with these settings, the other without, as its own command starts it.
- Optimizers of ours are those of the configs in ``configs/``, only sizes are replaced, and learning rates are the same on
  both sides. mmpretrain's MAE has the optimizer of its own config.
- Precision is fp32 on both sides but where a row says otherwise. On GPUs the released CL-MAE trains under fp16 autocast, and
  ours is under bfloat16 autocast then.
- ``peak memory`` is that of a whole process beyond its imports, weights and optimizer included; on GPUs that of tensors.
  ``peak of tensors`` is that of the tensors that a cycle makes, without what the allocator holds and cannot reuse.
- ``without share_passes``: ours with one forward pass more, which holds fewer activations at a time.

Where the released codes do something else than this project's defaults, ours does it too: MLO-MAE's position embeddings of
the encoder are trained and its masker has ReLU; CL-MAE's masker has one linear layer as its head, pixels are not normalized,
and the divergence, which the released code sums over the B images of a batch, has B times its weight.

The released codes are used unedited, from outside. What they need beside a current PyTorch and a fixed size is done here:

- MLO-MAE: of ``main_cifar10.py`` its own ``main`` and ``get_args_parser`` are executed; the rest, which makes a folder and a
  log file, is not. ``main`` stops where its engine would start training, and from there Betty's own ``run`` is
  called for a cycle at a time. Its globals are given: the released classes with other sizes; a CIFAR-10 of which nothing is
  loaded; a ``wandb`` that is silent; timm's ``param_groups_weight_decay``, which has moved within timm; an AdamW that takes
  ``decoupled_weight_decay``, because Betty 0.2.1 builds every optimizer anew from its ``defaults``, where a current PyTorch
  has that one; and the device, because Betty takes a GPU where there is one.
- CL-MAE: its own ``engine_pretrain.train_one_epoch`` runs an epoch of one iteration. ``torch._six``, which PyTorch no longer
  has, is there. In place of ``DistributedDataParallel``, without which it does not run, the model is its own ``module``.
  Where there is no GPU, ``torch.cuda.synchronize`` does nothing, and PyTorch itself switches off the autocast and the loss
  scalers, for CUDA only. Its ``print`` is silent. ``main_pretrain.py``, which insists on timm 0.3.2, is not run: its
  optimizer is built by timm's ``param_groups_weight_decay``, the present name of the function that it calls. For the
  comparison of losses, its cast to ``torch.float32`` is one to float64.
- Betty's checkout goes on ``sys.path``, because its packaging refuses Python 3.11 and newer; its log is silenced.
"""

import argparse
import copy
import os.path as osp
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial

HERE = osp.dirname(osp.realpath(__file__))
sys.path[:0] = [HERE, osp.dirname(osp.dirname(HERE))]

from options import BETTY, CL_MAE, MLO_MAE, Shape, add_machine, add_shape, check_checkout, read_shape

from mmmlo.utils.process import Parser, run, start


def parse_args() -> argparse.Namespace:
    """Read the command line and refuse folders that are no checkouts."""
    parser = Parser(__doc__)
    parser.add_argument('--mlo-mae', metavar='DIR', help=f'a checkout of {MLO_MAE}; needs --betty')
    parser.add_argument('--cl-mae', metavar='DIR', help=f'a checkout of {CL_MAE}')
    parser.add_argument('--betty', metavar='DIR', help=f'a checkout of {BETTY}')
    add_shape(parser)
    parser.add_argument(
        '--batch-sizes', type=int, nargs='+', default=[64, 256], help='default: 64 256, of CL-MAE the largest only'
    )
    parser.add_argument('--losses-only', action='store_true', help='compare losses, time nothing')
    parser.add_argument('--bf16', action='store_true', help='time ours in bfloat16 also on a CPU')
    add_machine(parser, cycles=7, warmup=1)
    args = parser.read(cycles=1, warmup=0, batch_sizes=1)
    for option, project in (('mlo_mae', MLO_MAE), ('cl_mae', CL_MAE), ('betty', BETTY)):
        check_checkout(parser, f'--{option.replace("_", "-")}', getattr(args, option), project)
    if bool(args.mlo_mae) != bool(args.betty):
        parser.error(f'--mlo-mae needs --betty, and the other way round: it runs on Betty, {BETTY}')
    args.batch_sizes.sort()
    return args


start(__name__, parse_args)

from measure import Build, Row, Times, Worker, describe_run, in_turns, prepare, print_rows, write_json
from released import cl_mae_cycle, mlo_mae_cycle
from released_losses import TOLERANCE, Check, check_cl_mae, check_mae, check_mlo_mae, cl_mae_config
from variants import build_cycle, config, learning_rates, mlo_mae_config, mmpretrain_config

# The other side's variants, by which settings of allocator and threads they have.
SAME, DOCUMENTED = 'same settings', 'as documented'
BF16, APART = 'ours, bfloat16', 'ours, without share_passes'


def time_all(args: argparse.Namespace, title: str, ours: Mapping[str, Build], other: Build | None) -> Times:
    """Time our variants, with every tool's settings, in turns with the other: with them, ``SAME``, and without."""
    start_one = partial(Worker, device=args.device, threads=args.threads)
    starts = {name: partial(start_one, build) for name, build in ours.items()}
    if other is not None:
        starts[SAME] = partial(start_one, other)
        starts[DOCUMENTED] = partial(start_one, other, waiting={}, keep_memory=False)
    return in_turns(starts, args.cycles, args.warmup, title)


def over_other(
    times: Times, name: str, goals: Mapping[str, float], ours: str = 'ours', what: str = 'seconds'
) -> list[Row]:
    """Rows over what ours is compared with, for each of its variants that is named and was timed."""
    return [times.row(f'{name}, {kind}', ours, kind, goal, what) for kind, goal in goals.items() if kind in times.seconds]


def time_mlo_mae(args: argparse.Namespace, shape: Shape) -> tuple[list[Row], Times]:
    """MLO-MAE over the released one, and over our own MAE."""
    cfg = mlo_mae_config(shape)
    apart = copy.deepcopy(cfg)
    apart.optim_wrapper.levels.masking.share_passes = False
    configs = {'ours': cfg, APART: apart, 'MAE': config('MAE', shape)}
    variants = {name: partial(build_cycle, each, shape.batch_size, args.device) for name, each in configs.items()}
    if args.bf16 or args.device.startswith('cuda'):
        variants[BF16] = partial(variants['ours'], amp=True)
    released = None
    if args.mlo_mae:
        released = partial(mlo_mae_cycle, args.mlo_mae, args.betty, shape, learning_rates(cfg), args.device)
    title = f'MLO-MAE cycle, batch {shape.batch_size}'
    times = time_all(args, title, variants, released)
    rows = over_other(times, title, {SAME: 0.6, DOCUMENTED: 0.45})
    if BF16 in variants:
        rows += over_other(times, f'{title}, ours in bfloat16', {DOCUMENTED: 0.35}, BF16)
    rows += over_other(times, f'{title}, peak memory', {SAME: 0.6, DOCUMENTED: 0.6}, what='memory')
    rows += over_other(times, f'{title}, peak of tensors', {SAME: 0.6}, what='tensors')
    for name, what in (('', 'seconds'), (', peak memory', 'memory'), (', peak of tensors', 'tensors')):
        rows += over_other(times, f'{title}, without share_passes{name}', {SAME: 0.6}, APART, what)
    return [*rows, times.row(f'{title}, over two steps of our MAE', 'ours', 'MAE', 3.6)], times


def time_cl_mae(args: argparse.Namespace, shape: Shape) -> tuple[list[Row], Times]:
    """An iteration of CL-MAE over the released one."""
    cfg = cl_mae_config(shape)
    amp = args.device.startswith('cuda')  # the released loop is always under autocast, which is one for GPUs
    ours = partial(build_cycle, cfg, shape.batch_size, args.device, amp=amp, iterations=1)
    released = partial(cl_mae_cycle, args.cl_mae, shape, learning_rates(cfg)['pretrain'], args.device)
    title = f'CL-MAE iteration, batch {shape.batch_size}'
    times = time_all(args, title, dict(ours=ours), released)
    title += ', ours in bfloat16, released in fp16' if amp else ''
    rows = over_other(times, title, {SAME: 0.65, DOCUMENTED: 0.5})
    rows += over_other(times, f'{title}, peak memory', {SAME: 0.6, DOCUMENTED: 0.6}, what='memory')
    return rows + over_other(times, f'{title}, peak of tensors', {SAME: 0.6}, what='tensors'), times


def time_mae(args: argparse.Namespace, shape: Shape) -> tuple[list[Row], Times]:
    """Two steps of our MAE over two of mmpretrain's."""
    ours = partial(build_cycle, config('MAE', shape), shape.batch_size, args.device)
    theirs = partial(build_cycle, mmpretrain_config(shape), shape.batch_size, args.device)
    title = f"two MAE steps over mmpretrain's, batch {shape.batch_size}"
    times = time_all(args, title, dict(ours=ours), theirs)
    return over_other(times, title, {SAME: 0.95, DOCUMENTED: 0.8}), times


def check_losses(args: argparse.Namespace, shape: Shape) -> Check:
    """Compare all that will be timed."""
    check = Check()
    check_mae(shape, check)
    if args.mlo_mae:
        check_mlo_mae(args.mlo_mae, args.betty, shape, check)
    if args.cl_mae:
        for norm_pix in (False, True):
            check_cl_mae(args.cl_mae, norm_pix, check)
    return check


def main() -> int:
    """Compare losses, time, print tables, write JSON; the exit status is 1 if losses do not agree."""
    args = parse_args()
    prepare(args)
    sized = [read_shape(args, size) for size in args.batch_sizes]
    check = check_losses(args, sized[0])
    check.print()
    print(f'every difference under {TOLERANCE:g} of the value: {"yes" if check.agrees else "NO"}\n', flush=True)
    jobs = []
    if check.agrees and not args.losses_only:
        jobs = [partial(time_mae, args, shape) for shape in sized]
        jobs += [partial(time_mlo_mae, args, shape) for shape in sized]
        jobs += [partial(time_cl_mae, args, sized[-1])] if args.cl_mae else []
    timed = [job() for job in jobs]
    if args.mlo_mae is None:
        print('without --mlo-mae and --betty: the released MLO-MAE is left out')
    if args.cl_mae is None:
        print('without --cl-mae: CL-MAE is left out')
    if timed:
        print_rows([row for rows, _ in timed for row in rows], 'the other')
        described = describe_run(args, 'mmpretrain', 'timm')
        print(f'{described} but where a row says otherwise, {args.cycles} cycles each')
    figures = [dict(rows=[asdict(row) for row in rows], seconds=times.seconds) for rows, times in timed]
    write_json(args.json, args, dict(agreed=check.agrees, losses=check.rows, timed=figures))
    return 0 if check.agrees else 1


if __name__ == '__main__':
    run(main)
