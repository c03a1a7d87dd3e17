"""Training runs of an evaluation: they go on where they were interrupted, and are not repeated once they have ended."""

import copy
import hashlib
import json
import os
import os.path as osp
import time
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process

from mmmlo.engine import NonFiniteError, NonFiniteGuardHook
from mmmlo.evaluation.results import Metric, ProtocolResult
from mmmlo.launch.config import build_runner, enable_amp, resolve_loaders
from mmmlo.launch.data_errors import data_errors
from mmmlo.preflight import VerifyPretrainedHook
from mmmlo.utils.config import dataloaders
from mmmlo.utils.whole_file import write_whole

__all__ = ['train_and_measure']


def train_and_measure(
    protocol: str,
    cfg: Config,
    folder: str,
    name: str,
    metrics: Mapping[str, tuple[str, float]],
    seeds: Sequence[int],
    identity: Any = None,
    launcher: str = 'none',
    num_workers: int | None = None,
    amp: bool = False,
) -> ProtocolResult:
    """Train by a config with each seed, and test the last state of each run once.

    A run that was interrupted goes on, and one that had ended is not repeated.

    Args:
        protocol (str): Name of the result.
        cfg (Config): Config of the whole run, with its checkpoint; changed in place.
        folder (str): Where runs are kept; each has a folder by ``name``, config, number of processes, ``identity`` and seed.
        name (str): Start of the runs' folder.
        metrics (Mapping[str, tuple[str, float]]): Of a metric that is kept: its name in the test -> its name in the result,
            and the factor that makes per cent of it. The first is the main one.
        seeds (Sequence[int]): A run for each.
        identity (Any): What else tells runs apart, such as fingerprints of the images. Defaults to None.
        launcher (str): As ``Runner`` has it. Defaults to 'none'.
        num_workers (int, optional): Processes that read images. Defaults to the config's.
        amp (bool): Whether to train under bfloat16 autocast whatever the config says. Defaults to False.

    Returns:
        ProtocolResult: Its settings have the learning rate and the batch size as they are over all processes.

    Raises:
        CheckpointError: The checkpoint does not fit.
        NonFiniteError: Losses or gradients of a run were not finite. Nothing of it is kept as a result.
    """
    start = time.monotonic()
    if amp:
        enable_amp(cfg)
    if num_workers is not None:
        for loader in dataloaders(cfg):
            loader['num_workers'] = num_workers
    resolve_loaders(cfg)
    work_dir = osp.join(folder, f'{name}_{_digest(cfg, identity)}')
    settings = _settings(cfg) | dict(seeds=list(seeds))
    runs, cached = [], True
    for seed in seeds:
        own = copy.deepcopy(cfg)
        own.work_dir = osp.join(work_dir, f'seed_{seed}')
        own.experiment_name = osp.relpath(own.work_dir, folder).replace(os.sep, '_')
        own.randomness = dict(own.get('randomness') or {}, seed=seed)
        own.launcher, own.resume = launcher, True
        result = osp.join(own.work_dir, 'result.json')
        if osp.isfile(result):
            with open(result) as file:
                runs.append(json.load(file))
            continue
        with data_errors(own):
            measured = _train_and_test(own)
        cached = False
        runs.append({new: round(factor * measured[old], 4) for old, (new, factor) in metrics.items() if old in measured})
        if is_main_process():
            write_whole(result, json.dumps(runs[-1]))
    return ProtocolResult(
        protocol,
        settings=settings,
        metrics={name: Metric([run[name] for run in runs]) for name in runs[0]},
        main=next(iter(runs[0])),
        seconds=time.monotonic() - start,
        cached=cached,
    )


def _train_and_test(cfg: Config) -> dict[str, float]:
    runner = build_runner(cfg)
    # Whatever the recipe: what is kept must be of these weights, and of a run that trained.
    for hook in (VerifyPretrainedHook, NonFiniteGuardHook):
        if not any(isinstance(given, hook) for given in runner.hooks):
            runner.register_hook(hook())
    runner.train()
    left_out = max(hook.left_out() for hook in runner.hooks if isinstance(hook, NonFiniteGuardHook))
    if 2 * left_out > runner.iter:  # too short for the hook to have stopped it
        raise NonFiniteError(
            f'{cfg.work_dir}: losses or gradients in {left_out} of {runner.iter} steps were not finite; nothing is measured'
        )
    return {name: float(value) for name, value in runner.test().items() if isinstance(value, Real)}


def _digest(cfg: Config, identity: Any) -> str:
    """Of all that changes what a run finds, but for its seed."""
    cfg = copy.deepcopy(cfg)
    for loader in dataloaders(cfg):
        for key in ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor'):  # change the speed alone
            loader.pop(key, None)
    content = json.dumps([cfg.to_dict(), get_world_size(), identity], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _settings(cfg: Config) -> dict[str, Any]:
    """What a run is trained with, over all processes."""
    optimizer, length, scaling = cfg.optim_wrapper.optimizer, cfg.train_cfg, cfg.get('auto_scale_lr') or {}
    batch_size = cfg.train_dataloader.batch_size * get_world_size()
    lr = optimizer.lr * (batch_size / scaling['base_batch_size'] if scaling.get('enable') else 1)
    return dict(
        recipe=osp.basename(str(cfg.filename)),
        length=f'{length.max_iters} iterations' if 'max_iters' in length else f'{length.max_epochs} epochs',
        batch_size=batch_size,
        optimizer=f'{optimizer.type}, lr {lr:g}, weight decay {optimizer.get("weight_decay", 0):g}',
    )
