#!/usr/bin/env python
"""Where the time of a cycle goes: seconds, operations and the rate achieved, for each level and each part of the model.

    python tools/benchmarks/profile_cycle.py configs/mlo_mae/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10.py \\
        [--batch-size 64] [--cfg-options KEY=VALUE ...] [--json profile.json]

Builds the config's model and optimizers, feeds every level a batch of noise that is on the device already, times some
cycles, and then records one with PyTorch's profiler. Each operator is put to the level in which it ran and to the part
of the model whose forward it belongs to, an operator of a backward pass by the number that autograd gives both:

- ``embed``, ``encoder``, ``decoder``, ``masker``, ``downstream``: modules of the model;
- ``loss``: what is in none of them: targets, losses, masks, indexing;
- ``step``: clipping, the check of the gradients and the optimizer; ``reduce``: averages over processes;
- ``python``: on CPUs, time in a level in which no operator ran.

``forward`` and ``backward`` are the level's own; ``edge: from <level>`` is what carries a vector of the hypergradient on
from that level. Operations are counted for matrix products, convolutions and attention, a multiplication and an addition
as two; the floor is the time that they would take at the rate of one large matrix product, which is measured first.

The profiler slows small operators down. The table is scaled to the median of the cycles that were timed without it.
``--loader`` adds the time that the config's own loaders take for the batches of a cycle, without a device.
"""

import argparse
import math
import os.path as osp
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

HERE = osp.dirname(osp.abspath(__file__))
sys.path[:0] = [HERE, osp.dirname(osp.dirname(HERE))]

from options import add_machine

from mmmlo.utils.process import Parser, run, start


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('config', help='a pretraining config of this project')
    parser.add_argument('--batch-size', type=int, help="images a batch, on every level; default: the config's")
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast on every level')
    parser.add_argument('--loader', action='store_true', help="also time the config's loaders")
    parser.add_cfg_options()
    add_machine(parser, cycles=7, warmup=2)
    return parser.read(cycles=1, batch_size=1)


start(__name__, parse_args)

import torch
from measure import describe_run, prepare, synchronize, time_call, write_json
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import flop_registry

from mmmlo.launch.config import enable_amp, load_config
from mmmlo.models import BaseMaskedAutoencoder
from mmmlo.registry import MODELS
from mmmlo.utils.errors import SettingError

BACKWARD = 'autograd::engine::evaluate_function: '
PART, LEVEL, EDGE = 'part: ', 'level: ', 'edge: '
_ATEN = torch.ops.aten
# Operator -> PyTorch's formula, and how many of its arguments that takes.
COUNTED = {
    'aten::mm': (_ATEN.mm, 2),
    'aten::addmm': (_ATEN.addmm, 3),
    'aten::addmm_': (_ATEN.addmm, 3),
    'aten::bmm': (_ATEN.bmm, 2),
    'aten::baddbmm': (_ATEN.baddbmm, 3),
} | {
    f'aten::_scaled_dot_product_{kind}': formula
    for kernel in ('flash_attention', 'flash_attention_for_cpu', 'efficient_attention', 'cudnn_attention')
    for kind, formula in {
        kernel: (_ATEN._scaled_dot_product_flash_attention, 3),
        f'{kernel}_backward': (_ATEN._scaled_dot_product_flash_attention_backward, 4),
    }.items()
}


class Training:
    """The model and optimizers of a config, and batches of noise for its levels.

    Args:
        cfg (Config): The config.
        batch_size (int): Images a batch.
        device (str): Where to train.
    """

    def __init__(self, cfg: Any, batch_size: int, device: str) -> None:
        kind = MODELS.get(cfg.model.type)
        if kind is None or not issubclass(kind, BaseMaskedAutoencoder):
            raise SettingError(f'{cfg.filename} trains a {cfg.model.type}, not a masked autoencoder of this project')
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        model.init_weights()
        self.model = model.to(device).train()
        self.wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.multi_level = hasattr(self.wrapper, 'update_levels')
        self.iterations = self.wrapper.cadence.iterations if self.multi_level else 1
        height, width = (cells * self.model.backbone.patch_size for cells in self.model.backbone.grid_size)
        classes = getattr(getattr(self.model, 'downstream', None), 'num_classes', 2)
        self._batch = dict(
            inputs=torch.randn(batch_size, 3, height, width, device=device),
            data_samples=[
                DataSample().set_gt_label(label) for label in torch.randint(classes, (batch_size,), device=device)
            ],
        )

    def cycle(self) -> None:
        """Move every level as often as a cycle does."""
        if not self.multi_level:
            with record_function(f'{LEVEL}pretrain'):
                with self.wrapper.optim_context(self.model):
                    losses = self.model.loss(**self._batch)
                self.wrapper.update_params(self.model.parse_losses(losses)[0])
            return
        for _ in range(self.iterations):
            batches = {level: [self._batch] * count for level, count in self.wrapper.due().items()}
            self.wrapper.update_levels(self.model, batches)

    def parts(self) -> Iterator[tuple[str, nn.Module]]:
        """The modules whose forward a part is."""
        # Encoder and decoder have ways through them that are not their forward, so their layers are watched.
        for part, parent in (('encoder', self.model.backbone), ('decoder', self.model.neck)):
            for name, module in parent.named_children():
                for layer in module if isinstance(module, nn.ModuleList) else [module]:
                    yield 'embed' if name == 'patch_embed' else part, layer
        yield 'masker', self.model.masker
        if getattr(self.model, 'downstream', None) is not None:
            yield 'downstream', self.model.downstream


def peak_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product."""
    side = 8192 if device.startswith('cuda') else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / min([time_call(lambda: a @ b, device) for _ in range(7)])


def operations(event: Any) -> int:
    """Operations of one operator, by its shapes; 0 for what is not counted."""
    if event.name == 'aten::conv2d':
        images, weight = event.input_shapes[:2]
        return 2 * images[0] * (images[2] // weight[2]) * (images[3] // weight[3]) * math.prod(weight)
    if event.name == 'aten::convolution_backward':  # by the weight; nothing asks for that by the image
        gradient, _, weight = event.input_shapes[:3]
        return 2 * gradient[0] * gradient[2] * gradient[3] * math.prod(weight)
    if event.name not in COUNTED:
        return 0
    operator, arguments = COUNTED[event.name]
    return flop_registry[operator](*event.input_shapes[:arguments])


def attribute(events: list[Any], on_device: bool) -> dict[tuple[str, str, str], dict[str, float]]:
    """Sum up a profile, by the device's or the CPU's time: (level, phase, part) -> seconds and operations."""
    ranges = [(e.time_range.start, e.time_range.end, e.name) for e in events if e.name.startswith((LEVEL, EDGE))]
    levels = [(start, end, name.removeprefix(LEVEL)) for start, end, name in ranges if name.startswith(LEVEL)]
    edges = [(start, end, name) for start, end, name in ranges if name.startswith(EDGE)]

    def inside(event: Any, ranges: list[tuple[float, float, str]]) -> str | None:
        # By time, not by nesting: on GPUs a backward pass runs in a thread of its own.
        return next((name for start, end, name in ranges if start <= event.time_range.start <= end), None)

    def ancestors(event: Any) -> Iterator[Any]:
        while event is not None:
            yield event
            event = event.cpu_parent

    def own_part(event: Any) -> str | None:
        for e in ancestors(event):
            if e.name.startswith(PART):
                return e.name.removeprefix(PART)
            if e.name in ('step', 'reduce'):
                return e.name
        return None

    # A forward operator's number is that of its node in the graph; the outermost one of a number is the operator's own.
    part_of: dict[int, str | None] = {}
    for event in events:
        if event.sequence_nr < 0 or event.name.startswith(('autograd::', PART, LEVEL, EDGE)):
            continue
        if not any(e.name.startswith(BACKWARD) for e in ancestors(event)):
            part_of[event.sequence_nr] = own_part(event) or part_of.get(event.sequence_nr)

    table: dict[tuple[str, str, str], dict[str, float]] = defaultdict(lambda: dict(seconds=0.0, operations=0))
    for event in events:
        level = inside(event, levels)
        if level is None or (on_device and event.name == f'{LEVEL}{level}'):
            continue
        node = next((e for e in ancestors(event) if e.name.startswith(BACKWARD)), None)
        edge = inside(event, edges)
        part = own_part(event)
        if part is None and node is not None:
            part = part_of.get(node.sequence_nr)
        if event.name.startswith((LEVEL, EDGE)):
            part = 'python'
        phase = edge or ('backward' if node is not None else 'forward')
        if part in ('step', 'reduce', 'python') and edge is None:
            phase = ''
        row = table[level, phase, part or 'loss']
        row['seconds'] += (event.self_device_time_total if on_device else event.self_cpu_time_total) / 1e6
        row['operations'] += operations(event)
    return dict(table)


def profile_cycle(training: Training, device: str) -> dict[tuple[str, str, str], dict[str, float]]:
    """Record one cycle; see :func:`attribute`."""
    ranges: list[Any] = []

    def enter(name: str) -> Callable[..., None]:
        def hook(*args: Any) -> None:
            ranges.append(record_function(f'{PART}{name}'))
            ranges[-1].__enter__()

        return hook

    def leave(*args: Any) -> None:
        ranges.pop().__exit__(None, None, None)

    handles = []
    for name, module in training.parts():
        handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
    on_device = device.startswith('cuda')
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_device else [])
    try:
        with profile(activities=activities, record_shapes=True) as profiler:
            training.cycle()
            synchronize(device)
    finally:
        for handle in handles:
            handle.remove()
    return attribute(list(profiler.events()), on_device)


def time_loaders(cfg: Any, training: Training, batch_size: int) -> float:
    """Seconds that the config's loaders take for the batches of a cycle, the mean over four cycles."""
    loaders = {'pretrain': cfg.train_dataloader}
    upper = cfg.train_cfg.get('dataloaders', {}) if training.multi_level else {}
    own = {level: given for level, given in upper.items() if not isinstance(given, str)}
    loaders.update({level: dict(cfg.train_dataloader, **given) for level, given in own.items()})
    wanted = dict.fromkeys(loaders, 1)
    if training.multi_level:
        cadence = training.wrapper.cadence
        wanted = {level: cadence.steps[level] * cadence.accumulation[level] for level in loaders}
    total = 0.0
    for level, loader_cfg in loaders.items():
        loader = Runner.build_dataloader(dict(loader_cfg, batch_size=batch_size), seed=0)
        iterator = iter(loader)
        next(iterator)  # workers start
        start, taken = time.perf_counter(), 0
        for _ in iterator:
            taken += 1
            if taken == 4 * wanted[level]:
                break
        if taken:
            total += (time.perf_counter() - start) / taken * wanted[level]
    return total


def print_table(rows: list[dict], cycle: float, rate: float) -> None:
    """Print the rows and their sums."""
    print(f'{"level":10}{"phase":22}{"part":12}{"ms":>9}{"share":>8}{"GFLOP":>9}{"GFLOP/s":>9}{"floor ms":>10}')

    def line(level: str, phase: str, part: str, seconds: float, count: float) -> None:
        speed = f'{count / seconds / 1e9:9.0f}' if count and seconds else f'{"":9}'
        print(
            f'{level:10}{phase:22}{part:12}{1000 * seconds:9.1f}{seconds / cycle:8.1%}{count / 1e9:9.2f}{speed}'
            f'{1000 * count / rate:10.1f}'
        )

    for row in rows:
        line(row['level'], row['phase'], row['part'], row['seconds'], row['operations'])
    for level in dict.fromkeys(row['level'] for row in rows):
        chosen = [row for row in rows if row['level'] == level]
        line(level, 'all', '', sum(r['seconds'] for r in chosen), sum(r['operations'] for r in chosen))
    line('cycle', '', '', cycle, sum(row['operations'] for row in rows))


def main() -> None:
    """Time, profile, print a table, write JSON."""
    args = parse_args()
    prepare(args)
    cfg = load_config(args.config, args.cfg_options)
    if args.amp:
        enable_amp(cfg)
    batch_size = args.batch_size or cfg.train_dataloader.batch_size
    rate = peak_rate(args.device, torch.bfloat16 if args.amp else torch.float32)
    training = Training(cfg, batch_size, args.device)
    seconds = [time_call(training.cycle, args.device) for _ in range(args.warmup + args.cycles)][args.warmup :]
    cycle = statistics.median(seconds)
    table = profile_cycle(training, args.device)
    scale = cycle / sum(row['seconds'] for row in table.values())
    rows = [
        dict(level=level, phase=phase, part=part, seconds=scale * row['seconds'], operations=row['operations'])
        for (level, phase, part), row in table.items()
    ]
    rows = [row for row in rows if row['seconds'] >= 0.0005 * cycle or row['operations']]
    print_table(rows, cycle, rate)
    print(
        f'{describe_run(args)}, batch {batch_size}: {1000 * cycle:.0f} ms a cycle '
        f'({1000 * min(seconds):.0f}-{1000 * max(seconds):.0f}), {1000 * cycle / scale:.0f} ms with the profiler; '
        f'a large matrix product reaches {rate / 1e9:.0f} GFLOP/s'
    )
    result = dict(seconds=seconds, rate=rate, rows=rows)
    if args.loader:
        result['loader_seconds'] = time_loaders(cfg, training, batch_size)
        print(f'the loaders alone, with the workers of the config: {1000 * result["loader_seconds"]:.0f} ms a cycle')
    write_json(args.json, args, result)


if __name__ == '__main__':
    run(main)
