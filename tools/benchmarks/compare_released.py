#!/usr/bin/env python
"""Speed and memory beside the released MLO-MAE and CL-MAE and mmpretrain's MAE, in one run, on the same weights and images.

    git clone https://github.com/Alexiland/MLO-MAE
    git clone https://github.com/ristea/cl-mae
    git clone https://github.com/leopard-ai/betty
    python tools/benchmarks/compare_released.py --mlo-mae MLO-MAE --cl-mae cl-mae --betty betty \\
        [--quick] [--device cpu] [--bf16] [--json released.json] [--chart released.png]

Without a checkout its part is left out: MLO-MAE needs the first and the third, CL-MAE the second, mmpretrain's MAE none.
On two cores it takes about ten minutes, and with ``--quick`` under three.

First the losses of both are compared, in float64 and without dropout: of MLO-MAE's three levels, of CL-MAE's two phases at
each of its terms, of MAE. If one of them differs by more than 1e-8 of itself, nothing is timed and the exit status is 1.

Then each variant gets a process of its own, and they run in turns, a cycle each; ratios are those of a round, their median
and quartiles are printed. A cycle is two pretrain steps, a finetune and a masking step of MLO-MAE, with the exact
hypergradient for ours and Betty's ``darts`` for the released; two steps of MAE; an MAE step and a masking step of CL-MAE.
Batches lie in memory: loading, decoding and normalizing images is not timed on either side. Goals are the project's own.

- ``same settings``: both with what ``tools/env.sh`` sets for the allocator and for threads that wait.
- ``as documented``: ours with these settings, the other without, as its own command starts it.
- Optimizers of ours are those of the configs in ``configs/``, only sizes are replaced, and learning rates are the same on
  both sides. mmpretrain's MAE has the optimizer of its own config.
- Precision is fp32 on both sides but where a row says otherwise. On GPUs the released CL-MAE trains under fp16 autocast, and
  ours is under bfloat16 autocast then.
- ``peak memory`` is that of a whole process beyond its imports, weights and optimizer included; on GPUs that of tensors.
  ``peak of tensors`` is that of the tensors that a cycle makes, without what the allocator holds and cannot reuse.
- ``without share_passes``: ours with one forward pass more, which holds fewer activations at a time.

Where the released codes do something else than this project's defaults, ours does it too: MLO-MAE's position embeddings of
the encoder are trained and its masker has ReLU; CL-MAE's masker has one linear layer as its head, pixels are not normalized.

The released codes are used unedited, from outside. What they need beside a current PyTorch and a fixed size is done here:

- MLO-MAE: of ``main_cifar10.py`` its own ``main`` and ``get_args_parser`` are executed; the rest, which makes a folder and a
  log file, is not. ``main`` stops where its engine would start training, and from there Betty's own ``run`` is
  called for a cycle at a time. Its globals are given: the released classes with other sizes; a CIFAR-10 of which nothing is
  loaded; a ``wandb`` that is silent; timm's ``param_groups_weight_decay``, which has moved within timm; an AdamW that takes
  ``decoupled_weight_decay``, because Betty 0.2.1 builds every optimizer anew from its ``defaults``, where a current PyTorch
  has that one; and the device, because Betty takes a GPU where there is one.
- CL-MAE: its own ``engine_pretrain.train_one_epoch`` runs an epoch of one iteration. ``torch._six``, which PyTorch no longer
  has, is there while it is imported. In place of ``DistributedDataParallel``, without which it does not run, the model is
  in a module that hands on what it gets. Where there is no GPU, ``torch.cuda.synchronize`` does nothing, and PyTorch itself
  switches off the autocast and the loss scalers, for CUDA only. Its ``print`` is silent. ``main_pretrain.py``, which insists
  on timm 0.3.2, is not run: its optimizer is built by timm's ``param_groups_weight_decay``, the present name of the function
  that it calls. For the comparison of losses, its cast to ``torch.float32`` is one to float64.
- Betty's checkout goes on ``sys.path``, because its packaging refuses Python 3.11 and newer; its log is silenced.
"""

import argparse
import copy
import os.path as osp
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial

HERE = osp.dirname(osp.abspath(__file__))
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
        '--batch-sizes', type=int, nargs='+', help='images a batch; default: 64 256, of CL-MAE the largest only'
    )
    parser.add_argument('--quick', action='store_true', help='batch 64 only, 3 cycles: under three minutes on two cores')
    parser.add_argument('--bf16', action='store_true', help='time ours in bfloat16 also on a CPU without units for it')
    parser.add_argument('--chart', metavar='FILE', help='draw the ratios here; the ending says the format')
    add_machine(parser, cycles=7, warmup=1)
    args = parser.read(cycles=1, warmup=0)
    for option, project in (('mlo_mae', MLO_MAE), ('cl_mae', CL_MAE), ('betty', BETTY)):
        check_checkout(parser, f'--{option.replace("_", "-")}', getattr(args, option), project)
    if bool(args.mlo_mae) != bool(args.betty):
        parser.error(f'--mlo-mae needs --betty, and the other way round: it runs on Betty, {BETTY}')
    args.batch_sizes = sorted(args.batch_sizes or ([64] if args.quick else [64, 256]))
    if args.quick:
        args.cycles = min(args.cycles, 3)
    return args


start(__name__, parse_args)

from measure import (
    Build,
    Row,
    Times,
    Worker,
    as_dicts,
    cpu_has_bf16,
    describe_run,
    draw_rows,
    in_turns,
    launcher_settings,
    memory_row,
    prepare,
    print_rows,
    tensor_row,
    time_row,
    write_json,
)
from released import cl_mae_cycle, mlo_mae_cycle
from released_losses import TOLERANCE, Check, check_cl_mae, check_mae, check_mlo_mae, cl_mae_config
from variants import build_cycle, config, learning_rates, mlo_mae_config, mmpretrain_config

# The other side's variants, by which settings of allocator and threads they have.
SAME, DOCUMENTED = 'same settings', 'as documented'
BF16, APART = 'ours, bfloat16', 'ours, without share_passes'


def bf16_is_timed(args: argparse.Namespace) -> bool:
    """Whether ours is timed in bfloat16 too: where the device has units for it, and where asked for."""
    return args.bf16 or args.device.startswith('cuda') or cpu_has_bf16()


def time_all(args: argparse.Namespace, title: str, ours: Mapping[str, Build], other: Build | None) -> Times:
    """Time our variants, with the launchers' settings, in turns with the other: with them, ``SAME``, and without."""
    start_one = partial(Worker, device=args.device, threads=args.threads)
    starts = {name: partial(start_one, build) for name, build in ours.items()}
    if other is not None:
        starts |= {SAME: partial(start_one, other), DOCUMENTED: partial(start_one, other, settings={})}
    return in_turns(starts, args.cycles, args.warmup, title)


def over_other(
    times: Times, name: str, goals: Mapping[str, float], ours: str = 'ours', make: Callable[..., Row] = time_row
) -> list[Row]:
    """Rows over what ours is compared with, for each of its variants that is named and was timed."""
    return [make(times, f'{name}, {kind}', ours, kind, goal) for kind, goal in goals.items() if kind in times.seconds]


def time_mlo_mae(args: argparse.Namespace, shape: Shape, folder: str) -> tuple[list[Row], Times]:
    """MLO-MAE over the released one, and over our own MAE."""
    cfg = mlo_mae_config(shape)
    released = None
    ours = partial(build_cycle, cfg, shape, args.device)
    if args.mlo_mae:
        ours = partial(ours, weights=osp.join(folder, 'mlo_mae.pth'))
        weights = osp.join(folder, 'mlo_mae_released.pth')
        rates = learning_rates(cfg)
        released = partial(mlo_mae_cycle, args.mlo_mae, args.betty, shape, rates, args.device, weights)
    apart = copy.deepcopy(cfg)
    apart.optim_wrapper.levels.masking.share_passes = False
    variants = {
        'ours': ours,
        APART: partial(ours.func, apart, *ours.args[1:], **ours.keywords),
        'MAE': partial(build_cycle, config('MAE', shape), shape, args.device),
    }
    if released and bf16_is_timed(args):
        variants[BF16] = partial(ours, amp=True)
    title = f'MLO-MAE cycle, batch {shape.batch_size}'
    times = time_all(args, title, variants, released)
    rows = over_other(times, title, {SAME: 0.6, DOCUMENTED: 0.45})
    if BF16 in variants:
        rows += over_other(times, f'{title}, ours in bfloat16', {DOCUMENTED: 0.35}, BF16)
    rows += over_other(times, f'{title}, peak memory', {SAME: 0.6, DOCUMENTED: 0.6}, make=memory_row)
    rows += over_other(times, f'{title}, peak of tensors', {SAME: 0.6}, make=tensor_row)
    for name, make in (('', time_row), (', peak memory', memory_row), (', peak of tensors', tensor_row)):
        rows += over_other(times, f'{title}, without share_passes{name}', {SAME: 0.6}, APART, make)
    return [*rows, time_row(times, f'{title}, over two steps of our MAE', 'ours', 'MAE', 3.6)], times


def time_cl_mae(args: argparse.Namespace, shape: Shape, folder: str) -> tuple[list[Row], Times]:
    """An iteration of CL-MAE over the released one."""
    cfg = cl_mae_config(shape)
    rate = learning_rates(cfg)['pretrain']
    amp = args.device.startswith('cuda')  # the released loop is always under autocast, which is one for GPUs
    weights = [osp.join(folder, f'{name}.pth') for name in ('cl_mae', 'cl_mae_released')]
    ours = partial(build_cycle, cfg, shape, args.device, amp=amp, weights=weights[0], iterations=1)
    released = partial(cl_mae_cycle, args.cl_mae, shape, rate, args.device, weights[1])
    title = f'CL-MAE iteration, batch {shape.batch_size}'
    times = time_all(args, title, dict(ours=ours), released)
    title += ', ours in bfloat16, released in fp16' if amp else ''
    rows = over_other(times, title, {SAME: 0.65, DOCUMENTED: 0.5})
    rows += over_other(times, f'{title}, peak memory', {SAME: 0.6, DOCUMENTED: 0.6}, make=memory_row)
    return rows + over_other(times, f'{title}, peak of tensors', {SAME: 0.6}, make=tensor_row), times


def time_mae(args: argparse.Namespace, shape: Shape) -> tuple[list[Row], Times]:
    """Two steps of our MAE over two of mmpretrain's."""
    ours = partial(build_cycle, config('MAE', shape), shape, args.device)
    theirs = partial(build_cycle, mmpretrain_config(shape), shape, args.device)
    title = f"two MAE steps over mmpretrain's, batch {shape.batch_size}"
    times = time_all(args, title, dict(ours=ours), theirs)
    return over_other(times, title, {SAME: 0.95, DOCUMENTED: 0.8}), times


def check_losses(args: argparse.Namespace, shape: Shape, folder: str) -> Check:
    """Compare the losses of all that will be timed, and leave the weights in a folder."""
    check = Check()
    check_mae(shape, check)
    files = {name: osp.join(folder, f'{name}.pth') for name in ('mlo_mae', 'mlo_mae_released', 'cl_mae', 'cl_mae_released')}
    if args.mlo_mae:
        check_mlo_mae(args.mlo_mae, args.betty, shape, check, files['mlo_mae'], files['mlo_mae_released'])
    if args.cl_mae:
        check_cl_mae(args.cl_mae, shape, check, files['cl_mae'], files['cl_mae_released'])
    return check


def main() -> int:
    """Compare losses, time, print tables, write JSON, draw; the exit status is 1 if losses do not agree."""
    args = parse_args()
    prepare(args)
    sized = [read_shape(args, size) for size in args.batch_sizes]
    rows: list[Row] = []
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        check = check_losses(args, sized[0], folder)
        check.print()
        print(f'every relative difference under {TOLERANCE:g}: {"yes" if check.agrees else "NO"}\n', flush=True)
        jobs = []
        if check.agrees:
            jobs += [partial(time_mae, args, shape) for shape in sized]
            jobs += [partial(time_mlo_mae, args, shape, folder) for shape in sized]
            if args.cl_mae:
                jobs.append(partial(time_cl_mae, args, sized[-1], folder))
        for job in jobs:
            new, times = job()
            rows += new
            figures.append(dict(rows=as_dicts(new), seconds=times.seconds, peak_memory_mib=times.memory))

    described = describe_run(args, 'mmpretrain', 'timm')
    if args.mlo_mae is None:
        print('without --mlo-mae and --betty: the released MLO-MAE is left out')
    elif not bf16_is_timed(args):
        print('ours in bfloat16 is left out: this processor has no units for it; --bf16 times it all the same')
    if args.cl_mae is None:
        print('without --cl-mae: CL-MAE is left out')
    if rows:
        print_rows(rows, 'the other')
        print(f'{described} but where a row says otherwise, {args.cycles} cycles each')
        if args.chart:
            draw_rows(rows, described, args.chart)
    environment = dict(machine=described, launcher_settings=launcher_settings(), cpu_has_bf16=cpu_has_bf16())
    write_json(args.json, args, dict(environment, agreed=check.agrees, losses=check.rows, timed=figures))
    return 0 if check.agrees else 1


if __name__ == '__main__':
    run(main)
