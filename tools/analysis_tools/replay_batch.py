#!/usr/bin/env python
"""Run a step again that ended a run because its loss or gradient was not finite.

    python tools/analysis_tools/replay_batch.py work_dirs/NAME/non_finite_pretrain_iter_12.pth

Prints each term of the loss, the first module whose output is not finite, and the parameters whose gradients are not; for a
level with paths the norms of its hypergradient too. The model is built from the config in the file, which is Python code:
run files of your own only.

Exit status: 1 if something is not finite, 0 if all is and so the failure does not repeat here, 2 for a file that is no dump.
"""

import argparse
import os.path as osp
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

sys.path.insert(0, osp.dirname(osp.dirname(osp.dirname(osp.realpath(__file__)))))

from mmmlo.utils.process import Parser, run, start


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('dump', metavar='DUMP', help='non_finite_*.pth of a work dir')
    parser.add_argument('--device', help='default: the GPU if there is one')
    return parser.read(argv)


start(__name__, parse_args)

import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from mmmlo.engine import set_number
from mmmlo.engine.non_finite import set_random_state
from mmmlo.evaluation.encoder import checkpoint_config
from mmmlo.registry import MODELS
from mmmlo.utils.checkpoints import Checkpoint, CheckpointError, read_content
from mmmlo.utils.text import format_list


def structures() -> list[type]:
    """Classes of what batches hold, in all frameworks that are installed: what a dump may name."""
    found: list[type] = []
    for name in ('mmengine', 'mmpretrain', 'mmseg', 'mmdet'):
        for part in ('structures', 'structures.bbox', 'structures.mask'):
            with suppress(ImportError):
                found += [value for value in vars(import_module(f'{name}.{part}')).values() if isinstance(value, type)]
    return found


def read_dump(path: str) -> dict[str, Any]:
    """Read what NonFiniteGuardHook wrote, without running code out of it."""
    with torch.serialization.safe_globals(structures()):
        content = read_content(path)
    if not isinstance(content, dict) or content.get('non_finite') != 1:
        raise CheckpointError(f'{path} is no dump of a step that was not finite')
    return content


def build_model(dump: dict[str, Any], path: str) -> tuple[torch.nn.Module, Any]:
    """Build the model as it was, in training mode, and read its config."""
    cfg = checkpoint_config(path, Checkpoint({}, dict(cfg=dump['config'])))
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(cfg.model)
    model.load_state_dict(dump['state_dict'])
    for values in dump['scheduled']:
        for key, value in values.items():
            set_number(model, key, value)
    return model.train(), cfg


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in the output of a module."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_of(item)


def is_finite(value: Any) -> bool:
    """Whether all numbers in an output are finite."""
    return all(bool(t.isfinite().all()) for t in tensors_of(value) if t.is_floating_point())


def watch(model: torch.nn.Module) -> list[str]:
    """A list into which go the modules whose output is not finite; those inside of others come first."""
    found: list[str] = []

    def look(name: str, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if not is_finite(output):
            origin = 'its inputs are finite' if is_finite(inputs) else 'neither are its inputs'
            found.append(f'{name or "the model"} ({type(module).__name__}); {origin}')

    for name, module in model.named_modules():
        module.register_forward_hook(partial(look, name))
    return found


def replay(dump: dict[str, Any], path: str, device: str) -> bool:
    """Run the step and print; whether all was finite."""
    model, cfg = build_model(dump, path)
    model.to(device)
    level, kind = dump['level'], torch.device(device).type
    print(f'{path}: iteration {dump["iteration"]}' + (f', level {level}' if level else ''))
    weights = [name for name, value in model.state_dict().items() if not is_finite(value)]
    if weights:
        print(f'weights that are not finite: {format_list(weights)}')
    finite = not weights
    prepared = {
        name: [model.data_preprocessor(batch, True) for batch in batches] for name, batches in dump['batches'].items()
    }
    broken = watch(model)
    set_random_state(dump['random_state'], torch.device(device))
    for batch in prepared[level]:
        images = batch['inputs']
        bad = [i for i, image in enumerate(images) if not is_finite(image)]
        if bad:
            print(f'images that are not finite, by their place in the batch: {format_list([str(i) for i in bad])}')
        with torch.autocast(kind, dtype=getattr(torch, dump['amp'] or 'bfloat16'), enabled=bool(dump['amp'])):
            losses = model.level_loss(level, batch) if level else model(**batch, mode='loss')
        # Terms that are lists are summed, as mmengine does.
        terms = {name: sum(t.mean() for t in tensors_of(value)) for name, value in losses.items() if list(tensors_of(value))}
        for name, value in terms.items():
            print(f'{name}: {value.item():g}')
        sum(value for name, value in terms.items() if 'loss' in name).backward()
        finite = finite and not bad and is_finite(terms)
    print(f'first module with an output that is not finite: {broken[0] if broken else "none"}')
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    wrong = [name for name, gradient in gradients.items() if not is_finite(gradient)]
    found = f'{len(wrong)} of {len(gradients)}, {format_list(wrong, 3)}' if wrong else 'none'
    print(f'gradients that are not finite: {found}')
    own = ((cfg.optim_wrapper.get('levels') or {}).get(level) or {}) if level else {}
    if own.get('paths'):
        finite = hypergradient(model, cfg, level, prepared) and finite
    return finite and not wrong and not broken


def hypergradient(model: torch.nn.Module, cfg: Any, level: str, batches: Mapping[str, list]) -> bool:
    """Compute a level's hypergradient and print norms; the optimizers begin without momentum."""
    model.zero_grad()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    last = {name: group[-1] for name, group in batches.items()}
    missing = [lower for lower in wrapper.level(level).graph.targets if lower not in last]
    if missing:
        print(f'hypergradient: not computed, because {missing[0]!r} has no batch in this iteration')
        return True
    found = wrapper.hypergradient(model, level, last[level], last)
    for lower, value in found.vector_norms.items():
        print(f'{level}/vector_norm/{lower}: {float(value):g}')
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in found.gradients]))
    print(f'{level}/hypergradient_norm: {float(norm):g}')
    return bool(norm.isfinite())


def main(argv: Sequence[str] | None = None) -> int:
    """Read, run, tell; return the exit status."""
    args = parse_args(argv)
    if replay(read_dump(args.dump), args.dump, args.device or ('cuda' if torch.cuda.is_available() else 'cpu')):
        print('Everything is finite here: the failure does not repeat.')
        return 0
    return 1


if __name__ == '__main__':
    run(main, status=2)
