"""How an encoder was trained, by the config in its checkpoint: plain words, without anyone's folders."""

import os.path as osp
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from mmmlo.utils.config import is_multi_level

__all__ = ['data_rows', 'describe_dataset', 'method_rows', 'schedule_rows']

Rows = list[tuple[str, str]]


def describe_dataset(dataset: Mapping[str, Any]) -> str:
    """A dataset in words: class, last part of its folder's path, split, and how it was cut.

    Args:
        dataset (Mapping): The config of a dataset, or of wrappers around one.

    Returns:
        str: As in 'CIFAR10 (cifar10), split train; part train of train 80 %, val 20 %, cut by seed 0'.
    """
    cuts = []
    while isinstance(dataset.get('dataset'), Mapping):
        if dataset.get('fractions') or dataset.get('part'):
            fractions = dataset.get('fractions') or dict(train=0.8, val=0.2)
            shares = ', '.join(f'{part} {100 * share:g} %' for part, share in fractions.items())
            cuts.append(f'part {dataset.get("part", "train")} of {shares}, cut by seed {dataset.get("seed", 0)}')
        else:
            cuts.append(f'in {_kind(dataset)}')
        dataset = dataset['dataset']
    if isinstance(dataset.get('datasets'), (list, tuple)):
        inner = ' and '.join(describe_dataset(some) for some in dataset['datasets'])
        return '; '.join([f'{_kind(dataset)} of {inner}', *cuts])
    root = _last(dataset.get('data_root'))
    text = _kind(dataset) + (f' ({root})' if root else '')
    prefix = dataset.get('data_prefix')
    split = dataset.get('split') or (_last(prefix) if isinstance(prefix, str) else '')
    if dataset.get('ann_file'):
        split = f'{split} {_last(dataset["ann_file"])}'.strip()
    return '; '.join([text + (f', split {split}' if split else ''), *cuts])


def data_rows(cfg: Config) -> Rows:
    """The data of each level.

    Args:
        cfg (Config): A pretraining config.

    Returns:
        list[tuple[str, str]]: Level and data; levels of the same data in one row.
    """
    loaders = dict(_loaders(cfg))
    texts: dict[str, list[str]] = {}
    for level, loader in loaders.items():
        texts.setdefault(describe_dataset(loader.get('dataset') or {}), []).append(level)
    return [(', '.join(levels), text) for text, levels in texts.items()]


def method_rows(cfg: Config, method: str) -> Rows:
    """What was trained, and how the masks came about.

    Args:
        cfg (Config): A pretraining config.
        method (str): Class of the algorithm.

    Returns:
        list[tuple[str, str]]: Names and values.
    """
    model = cfg.get('model') or {}
    rows = [('method', method)]
    if model.get('mask_ratio') is not None or model.get('neck'):
        rows.append(('share of masked patches', f'{model.get("mask_ratio", 0.75):g}'))
    if model.get('masker'):
        rows.append(('masker', _kind(model['masker'])))
    if model.get('bilevel') is not None:
        rows.append(('levels', f'two, downstream loss with weight {model["bilevel"]:g}'))
    for level, wrapper in ((cfg.get('optim_wrapper') or {}).get('levels') or {}).items():
        words = [f'{wrapper.get("steps", 1)} steps a cycle']
        words += [f'every {wrapper["every"]} cycles'] if wrapper.get('every', 1) != 1 else []
        words += [f'from cycle {wrapper["start"]}'] if wrapper.get('start') else []
        words += [_optimizer(wrapper)]
        words += [f'hypergradient along {" and ".join(wrapper["paths"])}'] if wrapper.get('paths') else []
        rows.append((f'level {level}', ', '.join(words)))
    if not is_multi_level(cfg) and cfg.get('optim_wrapper'):
        rows.append(('optimizer', _optimizer(cfg.optim_wrapper)))
    return rows


def schedule_rows(cfg: Config, meta: Mapping[str, Any]) -> Rows:
    """How long it was trained, on which batches, from which seed, with which versions.

    Args:
        cfg (Config): A pretraining config.
        meta (Mapping): What mmengine wrote into the checkpoint.

    Returns:
        list[tuple[str, str]]: Names and values; what nothing tells is left out.
    """
    rows: Rows = []
    schedule = cfg.get('train_cfg') or {}
    if meta.get('iter') is not None:
        rows.append(('steps' if not is_multi_level(cfg) else 'steps of the pretrain level', f'{meta["iter"]}'))
    if meta.get('epoch') is not None and schedule.get('max_epochs'):
        rows.append(('epochs', f'{meta["epoch"]} of {schedule["max_epochs"]}'))
    elif schedule.get('max_iters'):
        rows.append(('steps of the whole schedule', f'{schedule["max_iters"]}'))
    loader = cfg.get('train_dataloader') or {}
    if loader.get('batch_size'):
        rows.append(('images in a batch, on each process', f'{loader["batch_size"]}'))
    seed = meta.get('seed', (cfg.get('randomness') or {}).get('seed'))
    if seed is not None:
        rows.append(('seed', f'{seed}'))
    version = str(meta.get('mmengine_version') or '').split('+')[0]
    if version:
        rows.append(('mmengine while training', version))
    return rows


def _loaders(cfg: Config) -> Iterator[tuple[str, Mapping[str, Any]]]:
    first = next(iter((cfg.get('optim_wrapper') or {}).get('levels') or ['pretrain']))
    if cfg.get('train_dataloader'):
        yield first, cfg.train_dataloader
        for level, loader in ((cfg.get('train_cfg') or {}).get('dataloaders') or {}).items():
            # A name in place of a config says that the level shares another's batches.
            yield level, cfg.train_dataloader if isinstance(loader, str) else loader


def _optimizer(wrapper: Mapping[str, Any]) -> str:
    optimizer = wrapper.get('optimizer') or {}
    settings = [f'{name} {optimizer[name]:g}' for name in ('lr', 'weight_decay') if name in optimizer]
    return ' '.join([_kind(optimizer), *settings])


def _kind(config: Mapping[str, Any]) -> str:
    kind = config.get('type', 'unknown')
    return (kind if isinstance(kind, str) else kind.__name__).split('.')[-1]


def _last(path: Any) -> str:
    return osp.basename(str(path or '').rstrip('/'))
