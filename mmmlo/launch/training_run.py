"""A training run of an evaluation: it goes on where it was interrupted, and is not repeated once it has ended."""

import hashlib
import json
import os
import os.path as osp
from collections.abc import Callable
from numbers import Real
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process

from mmmlo.launch.config import build_runner, enable_amp, resolve_loaders, resolve_norms
from mmmlo.preflight import VerifyPretrainedHook
from mmmlo.utils.whole_file import write_whole

__all__ = ['train_and_test']


def train_and_test(
    cfg: Config,
    folder: str,
    name: str,
    keep: Callable[[dict[str, float]], dict[str, float]],
    identity: Any = None,
    seed: int = 0,
    launcher: str = 'none',
    num_workers: int | None = None,
    amp: bool = False,
) -> tuple[dict[str, float], bool]:
    """Train by a config, then test the last state once.

    Args:
        cfg (Config): Config of the whole run, with its checkpoint; changed in place.
        folder (str): Where runs are kept; each has a folder by ``name``, config, ``identity`` and seed.
        name (str): Start of the run's folder.
        keep (Callable): Makes of the test's metrics those that are kept.
        identity (Any): What else tells runs apart, such as fingerprints of the images. Defaults to None.
        seed (int): Seed of the run. Defaults to 0.
        launcher (str): As ``Runner`` has it. Defaults to 'none'.
        num_workers (int, optional): Processes that read images. Defaults to the config's.
        amp (bool): Whether to train under bfloat16 autocast whatever the config says. Defaults to False.

    Returns:
        tuple[dict[str, float], bool]: What ``keep`` returned, and whether it comes from an earlier run.

    Raises:
        CheckpointError: The checkpoint does not fit.
    """
    if amp:
        enable_amp(cfg)
    if num_workers is not None:
        for loader in (cfg.train_dataloader, cfg.get('val_dataloader'), cfg.test_dataloader):
            if loader is not None:
                loader.num_workers = num_workers
    resolve_loaders(cfg)
    resolve_norms(cfg)
    digest = hashlib.sha256(json.dumps([cfg.to_dict(), identity], sort_keys=True, default=str).encode()).hexdigest()
    cfg.work_dir = osp.join(folder, f'{name}_{digest[:12]}', f'seed_{seed}')
    cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)
    cfg.launcher = launcher
    cfg.resume = True
    cfg.experiment_name = osp.relpath(cfg.work_dir, folder).replace(os.sep, '_')
    result = osp.join(cfg.work_dir, 'result.json')
    if osp.isfile(result):
        with open(result) as file:
            return json.load(file), True
    runner = build_runner(cfg)
    runner.register_hook(VerifyPretrainedHook())
    runner.train()
    metrics = keep({name: float(value) for name, value in runner.test().items() if isinstance(value, Real)})
    if is_main_process():
        write_whole(result, json.dumps(metrics))
    return metrics, False
