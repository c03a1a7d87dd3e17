"""What is wrong with a config, found before anything is built from it.

mmengine reads the keys that it knows and leaves the others alone, so a misspelt one is as good as none.
"""

import inspect
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from mmmlo.engine.level import LevelConfig
from mmmlo.preflight.config_types import accepted_fields, closest, find_type, kind_of, why_not_found
from mmmlo.utils.config import named_dataloaders
from mmmlo.utils.errors import SettingError

__all__ = ['ConfigError', 'Problem', 'check_config', 'find_config_problems']


class ConfigError(SettingError):
    """A config with problems."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a config.

    Attributes:
        key (str): Where, as it is written in ``--cfg-options``.
        text (str): What is wrong, and what would be right.
        warning (bool): Whether the run may be meant as it is, as one that is cut short for a test. Defaults to False.
    """

    key: str
    text: str
    warning: bool = False

    def __str__(self) -> str:
        return f'{self.key}: {self.text}'


# Arguments of the Runner, and what it or the tools read besides.
_TOP_LEVEL = [name for name in inspect.signature(Runner).parameters if name != 'cfg'] + [
    'activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval', 'find_unused_parameters',
    'model_wrapper_cfg', 'runner_type', 'strategy', 'sync_bn', 'tta_model', 'vis_backends'
]

# What OpenMMLab's frameworks read before mmengine, and nothing reads now.
_AMP = "write optim_wrapper.type='mmmlo.BFloat16OptimWrapper', or pass --amp; without it the run is in fp32"
_UNREAD = dict(
    fp16=_AMP,
    amp=_AMP,
    optimizer_config='write optim_wrapper.clip_grad and optim_wrapper.accumulative_counts',
    lr_config='write param_scheduler',
    momentum_config='write param_scheduler',
    checkpoint_config='write default_hooks.checkpoint',
    log_config='write default_hooks.logger',
    resume_from='write load_from and resume=True, or pass --resume',
    total_epochs='write train_cfg.max_epochs',
    seed='write randomness.seed',
    deterministic='write randomness.deterministic',
    cudnn_benchmark='write env_cfg.cudnn_benchmark',
    dist_params='write env_cfg.dist_cfg',
)

# mmengine's, and those of the runtimes in configs/_base_.
_DEFAULT_HOOKS = (
    'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint', 'stop_signal', 'rank_seed',
    'verify_pretrained', 'check_classes', 'non_finite_guard', 'provenance'
)
# mmengine's, and ours with the same settings.
_DEFAULT_CONSTRUCTORS = ('DefaultOptimWrapperConstructor', 'mmmlo.GroupedOptimWrapperConstructor')
# What they ask for; they take no notice of others.
_PARAMWISE = (
    'custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'dwconv_decay_mult', 'dcn_offset_lr_mult',
    'flat_decay_mult', 'bypass_duplicate'
)
_LOADER_FIELDS = [*inspect.signature(DataLoader).parameters, 'num_batch_per_epoch']

# Key -> mmengine's registry of what stands there. Below `model` a key may mean anything.
_KINDS = {
    key: kind
    for kind, keys in dict(
        MODELS='model data_preprocessor tta_model',
        MODEL_WRAPPERS='model_wrapper_cfg',
        HOOKS='default_hooks custom_hooks',
        DATASETS='dataset datasets',
        TRANSFORMS='pipeline transforms',
        OPTIMIZERS='optimizer',
        OPTIM_WRAPPERS='optim_wrapper levels',
        OPTIM_WRAPPER_CONSTRUCTORS='constructor',
        PARAM_SCHEDULERS='param_scheduler',
        DATA_SAMPLERS='sampler batch_sampler',
        FUNCTIONS='collate_fn worker_init_fn',
        METRICS='val_evaluator test_evaluator',
        LOOPS='train_cfg val_cfg test_cfg',
        VISUALIZERS='visualizer',
        VISBACKENDS='vis_backends',
        LOG_PROCESSORS='log_processor',
        STRATEGIES='strategy',
        HYPERGRADIENTS='hypergradient',
    ).items()
    for key in keys.split()
}
# Where nothing of another kind can stand.
_STRICT = dict(
    HOOKS='a hook', LOOPS='a loop', OPTIMIZERS='an optimizer', OPTIM_WRAPPERS='an optim_wrapper',
    PARAM_SCHEDULERS='a schedule', DATASETS='a dataset', TRANSFORMS='a transform', VISUALIZERS='a visualizer'
)
# These foreign types have all their fields checked too: mmengine's own constructors refuse them later, or nobody does.
_CHECKED = ('HOOKS', 'LOOPS', 'OPTIMIZERS', 'PARAM_SCHEDULERS')
# A `type` that no registry knows: mmcv's operators are called by their names.
_NO_TYPES = ('nms', 'nms_cfg', 'roi_layer')
# What stands there without a `type`.
_LOOPS = dict(train_cfg='EpochBasedTrainLoop', val_cfg='ValLoop', test_cfg='TestLoop')
# Fields that are taken before the constructor sees them.
_TAKEN = dict(
    HOOKS=('priority', ),
    LOOPS=('by_epoch', ),
    PARAM_SCHEDULERS=('convert_to_iter_based', 'by_epoch', 'epoch_length'),
    VISUALIZERS=('name', 'save_dir'),
)
# Arguments that the Runner gives, so no config does.
_GIVEN = dict(LOOPS=('runner', 'dataloader', 'evaluator'), OPTIMIZERS=('params', ), PARAM_SCHEDULERS=('optimizer', ))


def find_config_problems(cfg: Config) -> list[Problem]:
    """Look for what is wrong with a config.

    Types are looked up as a Runner would, which imports the modules that register them; nothing is built. Variables that a
    config uses for itself may have any name that is not nearly that of a key of the Runner.

    Args:
        cfg (Config): The config.

    Returns:
        list[Problem]: Misspelt keys, fields that nothing reads, unknown types, levels without data, images whose
        augmentation nothing does, and, as warnings, schedules that do not fit the run. Empty if nothing was found.
    """
    checks = (_check_top_level, _check_names, _check_types, _check_levels, _check_preprocessor, _check_schedules)
    return [problem for check in checks for problem in check(cfg)]


def check_config(cfg: Config) -> None:
    """Log the warnings of :func:`find_config_problems`, and stop at anything worse.

    Args:
        cfg (Config): The config.

    Raises:
        ConfigError: With a line a problem.
    """
    problems = find_config_problems(cfg)
    for problem in problems:
        if problem.warning:
            print_log(f'config: {problem}', 'current', logging.WARNING)
    lines = [str(problem) for problem in problems if not problem.warning]
    if lines:
        more = f'{len(lines)} problems in the config:\n  ' if len(lines) > 1 else ''
        raise ConfigError(more + '\n  '.join(lines) + '\nTo train all the same, pass --no-check')


def _check_top_level(cfg: Config) -> Iterator[Problem]:
    for key, value in cfg.items():
        if key in _UNREAD and value not in (None, False):
            yield Problem(key, f'nothing reads it; {_UNREAD[key]}')
            continue
        near = closest(key, _TOP_LEVEL, 0.85)
        # Several evaluators of one run are variables such as `val_evaluator_full`.
        if near and key not in _TOP_LEVEL and not key.startswith(f'{near}_'):
            yield Problem(key, f'nothing reads it; did you mean {near!r}?')


def _check_names(cfg: Config) -> Iterator[Problem]:
    """Dicts without a type whose keys are known."""
    hooks = cfg.get('default_hooks') or {}
    for name in hooks:
        near = closest(name, _DEFAULT_HOOKS, 0.85)
        if near and name not in _DEFAULT_HOOKS:
            text = f'there is a default hook {near!r}, which may run besides; did you mean that?'
            yield Problem(f'default_hooks.{name}', text)
    for i, hook in enumerate(cfg.get('custom_hooks') or ()):
        for name, default in hooks.items():
            if isinstance(hook, Mapping) and default and hook.get('type') == default.get('type'):
                text = f'it would run twice: set its fields in default_hooks.{name}, which is the same'
                yield Problem(f'custom_hooks.{i}', text)
    randomness = [name for name in inspect.signature(Runner.set_randomness).parameters if name != 'self']
    yield from _unknown('randomness', cfg.get('randomness'), randomness)
    yield from _unknown('auto_scale_lr', cfg.get('auto_scale_lr'), ['enable', 'base_batch_size'])
    yield from _unknown('env_cfg', cfg.get('env_cfg'), ['cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'], False)
    for key, loader in named_dataloaders(cfg):
        more = ['data_preprocessor'] if '.dataloaders.' in key else []
        yield from _unknown(key, loader, _LOADER_FIELDS + more)
    wrapper = cfg.get('optim_wrapper') or {}
    levels = wrapper.get('levels')
    wrappers = {'optim_wrapper': wrapper} if 'optimizer' in wrapper else {}
    if isinstance(levels, Mapping):
        wrappers = {f'optim_wrapper.levels.{level}': own for level, own in levels.items() if isinstance(own, Mapping)}
    for key, wrapper in wrappers.items():
        yield from _check_wrapper(key, wrapper, cfg.get('default_scope') or 'mmengine')


def _check_wrapper(key: str, wrapper: Mapping, scope: str) -> Iterator[Problem]:
    kind = wrapper.get('type', 'OptimWrapper')
    cls = find_type(kind, scope, ['OPTIM_WRAPPERS']) if isinstance(kind, str) else kind
    if cls is not None:
        known, complete = accepted_fields(cls)
        known += ['type', 'constructor', 'paramwise_cfg']
        if '.levels.' in key:
            known += [field.name for field in fields(LevelConfig)]
        for problem in _unknown(key, wrapper, known, complete):
            field = problem.key.rpartition('.')[2]
            yield Problem(problem.key, f'{kind} does not read it; {_UNREAD[field]}') if field in ('fp16', 'amp') else problem
    if wrapper.get('constructor', _DEFAULT_CONSTRUCTORS[0]) in _DEFAULT_CONSTRUCTORS:
        paramwise = wrapper.get('paramwise_cfg')
        yield from _unknown(f'{key}.paramwise_cfg', paramwise, _PARAMWISE)
        for name, settings in dict((paramwise or {}).get('custom_keys') or {}).items():
            # Others become options of the parameter group.
            yield from _unknown(f'{key}.paramwise_cfg.custom_keys.{name}', settings, ['lr_mult', 'decay_mult'], False)
    clip = wrapper.get('clip_grad')
    if isinstance(clip, Mapping):
        function = clip_grad_value_ if clip.get('type', 'norm') == 'value' else clip_grad_norm_
        yield from _unknown(f'{key}.clip_grad', clip, ['type', *accepted_fields(function)[0][1:]])


def _unknown(key: str, given: Any, known: Iterable[str], complete: bool = True, who: str = '') -> Iterator[Problem]:
    """Fields that are not known; if others may be right too, those that are nearly a known one."""
    known = list(known)
    for name in given if isinstance(given, Mapping) else ():
        if name in known or name == '_scope_' or not isinstance(name, str):
            continue
        near = closest(name, known, 0.6 if complete else 0.85)
        if complete or near:
            hint = f'did you mean {near!r}?' if near else f'there are {", ".join(known)}'
            yield Problem(f'{key}.{name}', f'{who or "nothing"} {"has no such field" if who else "reads it"}; {hint}')


def _check_types(cfg: Config) -> Iterator[Problem]:
    scope = cfg.get('default_scope') or 'mmengine'
    for key in (name for name in cfg if name in _TOP_LEVEL):
        yield from _walk(cfg[key], key, _KINDS.get(key), scope, key == 'model')


def _walk(node: Any, key: str, kind: str | None, scope: str, in_model: bool) -> Iterator[Problem]:
    if isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from _walk(value, f'{key}.{i}', kind, scope, in_model)
    if not isinstance(node, Mapping) or key.rpartition('.')[2] in _NO_TYPES:
        return
    if in_model and str(node.get('type', '')).islower() and find_type(node['type'], scope) is None:
        return  # a mode that the model asks for by name, such as mmdet's 'nms' and 'conv'
    scope = node.get('_scope_', scope)
    yield from _check_type(node, key, kind, scope)
    constructor = node.get('constructor')
    if kind == 'OPTIM_WRAPPERS' and isinstance(constructor, str):
        yield from _check_name(constructor, f'{key}.constructor', 'OPTIM_WRAPPER_CONSTRUCTORS', scope)
    for name, value in node.items():
        if in_model:
            below: str | None = 'WEIGHT_INITIALIZERS' if name == 'init_cfg' else 'MODELS'
        elif kind in ('HOOKS', 'PARAM_SCHEDULERS', 'OPTIM_WRAPPERS') and 'type' not in node and name != 'levels' and (
            not key.startswith('optim_wrapper') or name not in _KINDS
        ):
            below = kind  # dicts of hooks, of schedules, of levels
        else:
            below = _KINDS.get(name)
        yield from _walk(value, f'{key}.{name}', below, scope, in_model)


def _check_type(node: Mapping, key: str, kind: str | None, scope: str) -> Iterator[Problem]:
    cls = node.get('type')
    if cls is None and kind == 'LOOPS' and key in _LOOPS:
        cls = _LOOPS[key] if key != 'train_cfg' or node.get('by_epoch', True) else 'IterBasedTrainLoop'
    if isinstance(cls, str):
        problems = list(_check_name(cls, f'{key}.type', kind, scope))
        yield from problems
        cls = None if problems else find_type(cls, scope, [kind] if kind else [])
    if not callable(cls) or kind == 'OPTIM_WRAPPERS':  # those have fields of their own
        return
    if kind in _CHECKED or getattr(cls, '__module__', '').startswith('mmmlo.'):
        known, complete = accepted_fields(cls)
        known = [field for field in known if field not in _GIVEN.get(kind or '', ())]
        yield from _unknown(key, node, ['type', *known, *_TAKEN.get(kind or '', ())], complete, cls.__name__)


def _check_name(name: str, key: str, kind: str | None, scope: str) -> Iterator[Problem]:
    cls = find_type(name, scope, [kind] if kind else [])
    kinds = kind_of(cls) if kind in _STRICT and cls is not None else []
    if cls is None:
        yield Problem(key, f'{name!r} {why_not_found(name, scope)}')
    elif kind is not None and kinds and kind not in kinds:
        yield Problem(key, f'{name!r} is not {_STRICT[kind]}; it is registered in {", ".join(kinds)}')


def _check_levels(cfg: Config) -> Iterator[Problem]:
    wrapper, loop = cfg.get('optim_wrapper') or {}, cfg.get('train_cfg') or {}
    levels, loaders = wrapper.get('levels'), loop.get('dataloaders')
    if not isinstance(levels, Mapping):
        if loaders and 'type' in loop:  # an ordinary loop has no such field
            yield Problem('train_cfg.dataloaders', 'nothing reads it without optim_wrapper.levels')
        return
    if 'constructor' not in wrapper:
        right = "optim_wrapper.constructor='mmmlo.MultiLevelOptimWrapperConstructor'"
        yield Problem('optim_wrapper.levels', f'nothing reads it; add {right}')
    if 'type' not in loop:
        yield Problem('train_cfg.type', "several levels need train_cfg.type='mmmlo.MultiLevelTrainLoop'")
        return
    base = 'pretrain' if 'pretrain' in levels else next(iter(levels), None)
    loaders = loaders or {}
    for level in levels:
        if level != base and level not in loaders:
            near = closest(level, [name for name in loaders if name not in levels])
            hint = 'add a loader, dict(dataset=...), or the name of a level whose batches it shares'
            hint = f'did you mean that by {near!r}?' if near else hint
            yield Problem(f'train_cfg.dataloaders.{level}', f'the level {level!r} has no data; {hint}')
    for level in loaders:
        if level == base:
            yield Problem(f'train_cfg.dataloaders.{level}', f'the data of {base!r}, the lowest level, is train_dataloader')
        elif level not in levels:
            there = ', '.join(map(repr, levels))
            yield Problem(f'train_cfg.dataloaders.{level}', f'optim_wrapper.levels has no {level!r}, but {there}')


def _check_preprocessor(cfg: Config) -> Iterator[Problem]:
    kind = ((cfg.get('model') or {}).get('data_preprocessor') or {}).get('type', 'SelfSupDataPreprocessor')
    cls = find_type(kind, cfg.get('default_scope') or 'mmengine', ['MODELS']) if isinstance(kind, str) else kind
    if cls is None or any(parent.__name__ == 'DeviceDataPreprocessor' for parent in inspect.getmro(cls)):
        return
    for key, loader in named_dataloaders(cfg):
        dataset = loader.get('dataset') if key.startswith('train') else None
        while isinstance(dataset, Mapping):
            if dataset.get('type') == 'mmmlo.InMemoryImages':
                yield Problem(
                    'model.data_preprocessor.type',
                    f'{kind!r} does not crop and mirror the images of mmmlo.InMemoryImages in {key}; write '
                    "'mmmlo.DeviceDataPreprocessor'",
                )
                return
            dataset = dataset.get('dataset')


def _check_schedules(cfg: Config) -> Iterator[Problem]:
    loop, schedules = cfg.get('train_cfg') or {}, cfg.get('param_scheduler')
    if not schedules or not loop:
        return
    by_level = isinstance(schedules, Mapping) and 'type' not in schedules
    levels = list((cfg.get('optim_wrapper') or {}).get('levels') or ())
    for level in schedules if by_level else ():
        if level not in levels:
            near = closest(level, levels)
            hint = f'did you mean {near!r}?' if near else f'the levels are {", ".join(map(repr, levels)) or "none"}'
            yield Problem(f'param_scheduler.{level}', f'there is no such level; {hint}')
    for key, own in schedules.items() if by_level else [('', schedules)]:
        single = isinstance(own, Mapping)
        for i, schedule in enumerate([own] if single else own):
            where = '.'.join(filter(None, ('param_scheduler', key, '' if single else str(i))))
            yield from _check_schedule(where, schedule, loop, upper=bool(key) and key != (levels or [key])[0])


def _check_schedule(key: str, schedule: Mapping, loop: Mapping, upper: bool) -> Iterator[Problem]:
    begin, end, by_epoch = schedule.get('begin', 0), schedule.get('end'), schedule.get('by_epoch', True)
    unit = 'epochs' if by_epoch else 'iterations'
    length = loop.get('max_epochs' if by_epoch else 'max_iters')
    # Known only with the data; or counted in the level's own steps, of which there are fewer.
    if length is None or not by_epoch and upper:
        return
    if begin >= length:
        yield Problem(f'{key}.begin', f'it begins at {begin}, after the run, which has {length} {unit}', warning=True)
        return
    if end is None and 'T_max' in schedule:
        end = begin + schedule['T_max']
    if end is not None and end > length:
        yield Problem(f'{key}.end', f'it ends at {end}, and the run has {length} {unit}: it stops half way', warning=True)
